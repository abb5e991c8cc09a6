import { types } from 'cassandra-driver';
import type { SubjectRef } from '../store.ts';
import { blobOf } from './blob.ts';
import { canExpire, type Now } from './write-rules.ts';

/** Spans whose entries are known; the oldest is forgotten, and its entry written again. */
const KNOWN_MAX = 100_000;
/**
 * Entries outlive what they lead to by this at least, or by half of its life, and are written again when half of that is used up: so seldom. The
 * other half is for clocks that are corrected: an entry of a clock that was a day ahead seems to live, and to have been written, a day later than it does.
 */
const SLACK_MIN_SECONDS = 172_800;
/** Of deletions: behind every end that is told. What is deleted is never written again. */
const DELETED_AT = 2 ** 50;

/** A statement that is missing before a batch can be found. */
export interface SpanEntry {
  readonly text: string;
  readonly values: readonly unknown[];
  readonly name: string;
  /** Epoch seconds; Infinity: it stays until it is trimmed. */
  readonly ends: number;
}

/**
 * Which stretches of a subject's ids have batches. An entry lives as long as the last of them: a subject of many ids that have all expired has few
 * entries, and a read passes over the rest at once. A row has two lives, and is there while one of them lasts: its marker, for batches that never
 * expire, has no end; its column ends. That one's write timestamp is its own end, so of several writes the one that lives longest stays, in
 * whichever order they come and whatever a process before this one has written.
 */
export class SpanDirectory {
  readonly #text: { readonly forever: string; readonly ending: string; readonly trim: string };
  readonly #known = new Map<string, number>();

  constructor(keyspace: string) {
    this.#text = {
      forever: `INSERT INTO ${keyspace}.spans (subject, span) VALUES (?, ?) USING TIMESTAMP 1`,
      ending: `UPDATE ${keyspace}.spans USING TTL ? AND TIMESTAMP ? SET ends = ? WHERE subject = ? AND span = ?`,
      trim: `DELETE FROM ${keyspace}.spans USING TIMESTAMP ${DELETED_AT} WHERE subject = ? AND span < ?`,
    };
  }

  /** Null if there is one that lives as long as a row of this time to live (seconds; 0 for ever). */
  missing(subject: SubjectRef, span: number, ttl: number, now: Now): SpanEntry | null {
    const name = `${span} ${blobOf(subject).toString('latin1')}`;
    const nowSeconds = Math.ceil(now.earliestMs / 1000);
    const needed = ttl === 0 ? Number.POSITIVE_INFINITY : nowSeconds + ttl;
    const slack = Math.max(SLACK_MIN_SECONDS, Math.ceil(ttl / 2));
    if ((this.#known.get(name) ?? 0) >= needed + slack / 2) return null;
    const life = ttl + slack;
    const key = [blobOf(subject), types.Long.fromNumber(span)];
    if (ttl === 0 || !canExpire(life, now)) {
      return { text: this.#text.forever, values: key, name, ends: Number.POSITIVE_INFINITY };
    }
    const ends = nowSeconds + life;
    const end = types.Long.fromNumber(ends);
    return { text: this.#text.ending, values: [life, end, end, ...key], name, ends };
  }

  written({ name, ends }: SpanEntry): void {
    const known = this.#known.get(name);
    if (known !== undefined && known >= ends) return;
    this.#known.set(name, ends);
    if (this.#known.size > KNOWN_MAX) this.#known.delete(this.#known.keys().next().value as string);
  }

  /** Deletes the entries of a subject below a span. */
  trim(subject: SubjectRef, below: number): Pick<SpanEntry, 'text' | 'values'> {
    return { text: this.#text.trim, values: [blobOf(subject), types.Long.fromNumber(below)] };
  }
}
