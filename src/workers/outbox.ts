import type { RingProducer } from '../shm/ring-producer.ts';

/**
 * Writes records to a ring without ever dropping or reordering one: when the ring is full, records wait in memory until `flush`. The owner
 * must take in no new work while `blocked` is true; that bounds what can wait to what one round of work produces, and what is open may still need.
 *
 * Use: `const at = outbox.begin(type, length)`; write at `outbox.view` / `outbox.bytes` from offset `at`; `outbox.end()`.
 */
export class Outbox {
  readonly #ring: RingProducer;
  readonly #waiting: { type: number; bytes: Buffer }[] = [];
  #next = 0;
  #scratch: { type: number; bytes: Buffer } | null = null;
  view: DataView;
  bytes: Uint8Array;

  constructor(ring: RingProducer) {
    this.#ring = ring;
    this.view = ring.view;
    this.bytes = ring.bytes;
  }

  /** Position of the ring behind what was sent, once nothing is `blocked`. */
  get position(): number {
    return this.#ring.position;
  }

  get blocked(): boolean {
    return this.#next < this.#waiting.length;
  }

  begin(type: number, length: number): number {
    if (!this.blocked) {
      const offset = this.#ring.claim(type, length);
      if (offset >= 0) {
        this.view = this.#ring.view;
        this.bytes = this.#ring.bytes;
        return offset;
      }
    }
    const bytes = Buffer.alloc(length);
    this.#scratch = { type, bytes };
    this.view = new DataView(bytes.buffer, bytes.byteOffset, length);
    this.bytes = bytes;
    return 0;
  }

  end(): void {
    if (this.#scratch === null) {
      this.#ring.commit();
      return;
    }
    this.#waiting.push(this.#scratch);
    this.#scratch = null;
  }

  /** Moves waiting records to the ring; true when none is left. */
  flush(): boolean {
    while (this.#next < this.#waiting.length) {
      const record = this.#waiting[this.#next] as { type: number; bytes: Buffer };
      const offset = this.#ring.claim(record.type, record.bytes.length);
      if (offset < 0) {
        this.#forgetMoved();
        return false;
      }
      this.#ring.bytes.set(record.bytes, offset);
      this.#ring.commit();
      this.#next += 1;
    }
    this.#waiting.length = 0;
    this.#next = 0;
    return true;
  }

  /** Something may wait for as long as there is much to do. Once they are half of all, so that each is moved once or so. */
  #forgetMoved(): void {
    if (this.#next * 2 < this.#waiting.length) return;
    this.#waiting.splice(0, this.#next);
    this.#next = 0;
  }
}
