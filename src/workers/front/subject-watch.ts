import { ToShard } from '../link.ts';
import type { ShardLink } from './shard-link.ts';

interface Asked {
  readonly shard: number;
  /** The shard is a new one: subjects may have been born between the old one's last word and this answer. */
  readonly isReplacement: boolean;
}

/**
 * Has the shards tell of new subjects, from the first pattern on and for good: a record for each subject in its life costs less than the care that
 * turning it off would need. A search that begins when every shard has confirmed finds each subject that no shard will tell of.
 */
export class SubjectWatch {
  readonly #touched: (link: ShardLink) => void;
  readonly #onGap: () => void;
  readonly #asked = new Map<number, Asked>();
  #waiters: (() => void)[] = [];
  #isOn = false;
  #nextToken = 1;

  /** `onGap`: something may have been missed, search again. */
  constructor(touched: (link: ShardLink) => void, onGap: () => void) {
    this.#touched = touched;
    this.#onGap = onGap;
  }

  /** Resolves when every shard of `links`, which are all there are, tells of new subjects. */
  on(links: readonly ShardLink[]): Promise<void> {
    if (!this.#isOn) {
      this.#isOn = true;
      for (const link of links) this.#ask(link, false);
    }
    if (this.#asked.size === 0) return Promise.resolve();
    return new Promise((resolve) => this.#waiters.push(resolve));
  }

  attached(link: ShardLink): void {
    if (this.#isOn) this.#ask(link, true);
  }

  /** It will be replaced, and then searched for what it did not tell. */
  shardDied(shard: number): void {
    for (const [token, asked] of this.#asked) {
      if (asked.shard === shard) this.#asked.delete(token);
    }
    this.#maybeRelease();
  }

  watched(token: number): void {
    const asked = this.#asked.get(token);
    if (asked === undefined) return;
    this.#asked.delete(token);
    this.#maybeRelease();
    if (asked.isReplacement) this.#onGap();
  }

  #ask(link: ShardLink, isReplacement: boolean): void {
    const token = this.#nextToken++;
    this.#asked.set(token, { shard: link.shard, isReplacement });
    const { controlOutbox } = link;
    const at = controlOutbox.begin(ToShard.WATCH, 8);
    controlOutbox.view.setUint32(at, token, true);
    controlOutbox.end();
    this.#touched(link);
  }

  #maybeRelease(): void {
    if (this.#asked.size > 0) return;
    for (const resolve of this.#waiters.splice(0)) resolve();
  }
}
