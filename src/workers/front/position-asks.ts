import { POSITIONS_HEADER, ToShard } from '../link.ts';
import type { ShardLink } from './shard-link.ts';

/** Where a subject stands, as its shard knows it; -1: it does not know. */
export type TakePosition = (index: number, head: number, settled: number) => void;

interface Asked {
  readonly shard: number;
  readonly take: TakePosition;
  readonly done: () => void;
}

/** Asks shards where the subjects of subscriptions stand. Whoever asks bounds what is open: each question is kept until its shard answers. */
export class PositionAsks {
  readonly #touched: (link: ShardLink) => void;
  readonly #asked = new Map<number, Asked>();
  #nextToken = 1;

  constructor(touched: (link: ShardLink) => void) {
    this.#touched = touched;
  }

  /**
   * `subscriptions`: POSITIONS_MAX at most, of subjects of this shard. `take` gets what the shard knows, by their index; then, also if the shard is
   * gone, `done` is called.
   */
  ask(link: ShardLink, subscriptions: readonly number[], take: TakePosition, done: () => void): void {
    const token = this.#nextToken;
    this.#nextToken = (token + 1) >>> 0;
    this.#asked.set(token, { shard: link.shard, take, done });
    const { controlOutbox } = link;
    const at = controlOutbox.begin(ToShard.POSITIONS, POSITIONS_HEADER + subscriptions.length * 4);
    const { view } = controlOutbox;
    view.setUint32(at, token, true);
    view.setUint32(at + 4, subscriptions.length, true);
    subscriptions.forEach((id, i) => void view.setUint32(at + POSITIONS_HEADER + i * 4, id, true));
    controlOutbox.end();
    this.#touched(link);
  }

  /** A POSITIONS record of a shard at `offset` of the view. */
  answered(view: DataView, offset: number): void {
    const token = view.getUint32(offset, true);
    const asked = this.#asked.get(token);
    if (asked === undefined) return;
    this.#asked.delete(token);
    const count = view.getUint32(offset + 4, true);
    for (let i = 0; i < count; i++) {
      const at = offset + POSITIONS_HEADER + i * 16;
      asked.take(i, view.getFloat64(at, true), view.getFloat64(at + 8, true));
    }
    asked.done();
  }

  /** What it was asked is not answered any more. */
  shardDied(shard: number): void {
    for (const [token, asked] of this.#asked) {
      if (asked.shard !== shard) continue;
      this.#asked.delete(token);
      asked.done();
    }
  }
}
