/** Runs one thing at a time, in the order of asking: for work that goes over many turns of the event loop. */
export class Exclusive {
  #last: Promise<unknown> = Promise.resolve();

  /** Resolves or rejects as `work` does, which begins when everything asked for before has ended. */
  run<Result>(work: () => Promise<Result>): Promise<Result> {
    const result = this.#last.then(work);
    // How one ends is for its caller to know; the next one begins either way.
    this.#last = result.then(nothing, nothing);
    return result;
  }
}

function nothing(): undefined {
  return undefined;
}
