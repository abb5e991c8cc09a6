/** A broken invariant: a defect of the program, never of its input. It stops the thread and is not caught. */
export class AssertionError extends Error {
  override name = 'AssertionError';
}

/** Stays on in production. `message` is a constant or a thunk, so that the good path builds no string. */
export function assert(condition: boolean, message: string | (() => string)): asserts condition {
  if (!condition) {
    throw new AssertionError(typeof message === 'string' ? message : message());
  }
}

/** The end of an exhaustive `switch`: the compiler refuses it while a case is missing. */
export function unreachable(value: never): never {
  throw new AssertionError(`unreachable: ${String(value)}`);
}

/** For a lookup that cannot miss; keeps `!` and `undefined` out of the code that uses the value. */
export function defined<T>(value: T | undefined | null, message: string): T {
  if (value === undefined || value === null) {
    throw new AssertionError(message);
  }
  return value;
}
