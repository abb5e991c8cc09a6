export interface LeaderWatchOptions {
  /** raft.election_timeout: an ordinary failover is over by then, and calls ride it out by waiting. */
  readonly patienceMs: number;
  /** No leader has been known for that long. */
  readonly onLost: () => void;
  /** There is one again. */
  readonly onFound: () => void;
}

/** Whether the node knows a leader, or did a moment ago: without one nothing can be published, nor read for sure. */
export class LeaderWatch {
  readonly #options: LeaderWatchOptions;
  #leader = '';
  #isWatching = false;
  #isLost = false;
  #timer: NodeJS.Timeout | null = null;

  constructor(options: LeaderWatchOptions) {
    this.#options = options;
  }

  get isLost(): boolean {
    return this.#isLost;
  }

  /** '' = none is known. */
  changed(leader: string): void {
    this.#leader = leader;
    if (this.#isWatching) this.#judge();
  }

  /** From now on it is told when there is none. */
  start(): void {
    this.#isWatching = true;
    this.#judge();
  }

  /** Nothing is told any more. */
  stop(): void {
    this.#isWatching = false;
    this.#cancel();
  }

  #judge(): void {
    if (this.#leader === '') {
      if (this.#isLost || this.#timer !== null) return;
      this.#timer = setTimeout(() => {
        this.#timer = null;
        this.#isLost = true;
        this.#options.onLost();
      }, this.#options.patienceMs);
      return;
    }
    this.#cancel();
    if (!this.#isLost) return;
    this.#isLost = false;
    this.#options.onFound();
  }

  #cancel(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
  }
}
