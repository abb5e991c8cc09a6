/** Rejects after `ms` if the work is not done by then; what becomes of the work nobody looks at any more. `what`: who did not answer. */
export async function inTime<T>(work: Promise<T>, ms: number, what: string): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} did not answer within ${ms} ms`)), ms);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** What is not there within `ms` is null; so is what fails. For figures, of which those of a moment ago will do. */
export async function within<T>(ms: number, answer: Promise<T>): Promise<T | null> {
  return await inTime(answer, ms, 'a part').catch(() => null);
}
