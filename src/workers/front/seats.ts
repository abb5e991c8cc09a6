/** The numbers of all subscriptions and groups of this node, of Subscribe and of Consume alike, and how many subscriptions are open. */
export class Seats {
  readonly #max: number;
  #open = 0;
  #nextSubscription = 1;
  #nextGroup = 1;

  /** `max`: limits.subscriptions */
  constructor(max: number) {
    this.#max = max;
  }

  get open(): number {
    return this.#open;
  }

  get full(): boolean {
    return this.#open >= this.#max;
  }

  /** The number of a new subscription; the caller has looked at `full`. */
  take(): number {
    this.#open += 1;
    return this.#nextSubscription++;
  }

  release(): void {
    this.#open -= 1;
  }

  groupNumber(): number {
    return this.#nextGroup++;
  }
}
