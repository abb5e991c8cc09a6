import type { ShardLink } from './shard-link.ts';

/** Rings the bells of shards once for all that one turn of the event loop brings. */
export class TurnBells {
  readonly #links: readonly (ShardLink | null)[];
  #isQueued = false;

  constructor(links: readonly (ShardLink | null)[]) {
    this.#links = links;
  }

  /** Something was written for this shard. */
  touched(link: ShardLink): void {
    if (!link.markDirty() || this.#isQueued) return;
    this.#isQueued = true;
    setImmediate(this.#ring);
  }

  readonly #ring = (): void => {
    this.#isQueued = false;
    for (const link of this.#links) link?.ringIfDirty();
  };
}
