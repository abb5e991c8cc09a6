/** A core reached for a clock, a timer or ambient randomness. */
export class DeterminismViolation extends Error {
  override name = 'DeterminismViolation';
}

type Target = { [name: string]: unknown };

const TRAPPED: readonly [target: object, names: readonly string[]][] = [
  [Date, ['now']],
  [Math, ['random']],
  [performance, ['now']],
  [process, ['hrtime', 'nextTick']],
  [crypto, ['getRandomValues', 'randomUUID']],
  [globalThis, ['Date', 'setTimeout', 'setInterval', 'setImmediate', 'queueMicrotask']],
];

/** Runs synchronous code with everything trapped that would make two runs of one seed differ. */
export function withoutAmbient<T>(run: () => T): T {
  const undo: (() => void)[] = [];
  for (const [target, names] of TRAPPED) {
    for (const name of names) {
      undo.push(trap(target as Target, name));
    }
  }
  try {
    return run();
  } finally {
    for (const restore of undo.reverse()) {
      restore();
    }
  }
}

function trap(target: Target, name: string): () => void {
  const original = Object.getOwnPropertyDescriptor(target, name);
  // A class, for the sake of `new Date()`; what was its static side stays reachable, and is trapped by itself.
  const parent = name === 'Date' ? Date : Object;
  const value = class extends parent {
    constructor() {
      super();
      throw new DeterminismViolation(`${name} was called inside the simulation`);
    }
  };
  const call = () => new value();
  Object.defineProperty(target, name, { configurable: true, writable: true, value: name === 'Date' ? value : call });
  return () => {
    if (original === undefined) {
      delete target[name];
    } else {
      Object.defineProperty(target, name, original);
    }
  };
}
