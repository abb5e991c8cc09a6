/** Records that prove themselves: 0 u32 CRC of the rest · 4 u32 sequence · 8 body, whose length and content follow from the sequence. */
import { crc32 } from '../../src/base/checksum.ts';
import type { RingConsumer } from '../../src/shm/ring-consumer.ts';
import type { RingProducer } from '../../src/shm/ring-producer.ts';

const HEADER_BYTES = 8;
const POOL = Buffer.from(Array.from({ length: 4_096 }, (_, i) => (Math.imul(i + 1, 0x9e3779b1) >>> 13) & 0xff));

export class RecordWriter {
  readonly #ring: RingProducer;
  readonly #bodyBytesMax: number;
  sequence: number;

  constructor(ring: RingProducer, bodyBytesMax: number, sequence: number) {
    this.#ring = ring;
    this.#bodyBytesMax = bodyBytesMax;
    this.sequence = sequence;
  }

  /** False when the ring is full. `site` is told where in the protocol it stands. */
  tryWrite(site: (name: string) => void): boolean {
    const ring = this.#ring;
    const bodyBytes = bodyBytesOf(this.sequence, this.#bodyBytesMax);
    site('before claim');
    const offset = ring.claim(1 + (this.sequence % 7), HEADER_BYTES + this.#bodyBytesMax);
    if (offset < 0) return false;
    site('after claim');
    ring.view.setUint32(offset + 4, this.sequence >>> 0, true);
    const from = this.sequence % (POOL.length - this.#bodyBytesMax);
    const half = bodyBytes >>> 1;
    POOL.copy(ring.buffer, offset + HEADER_BYTES, from, from + half);
    site('half of the payload');
    POOL.copy(ring.buffer, offset + HEADER_BYTES + half, from + half, from + bodyBytes);
    ring.view.setUint32(offset, crc32(ring.buffer.subarray(offset + 4, offset + HEADER_BYTES + bodyBytes)), true);
    site('before commit');
    ring.commit(HEADER_BYTES + bodyBytes);
    this.sequence = (this.sequence + 1) >>> 0;
    site('after commit');
    return true;
  }
}

export class RecordReader {
  readonly #ring: RingConsumer;
  readonly #bodyBytesMax: number;
  /** Sequence of the next record. */
  expected: number;
  bad = 0;

  constructor(ring: RingConsumer, bodyBytesMax: number, expected: number) {
    this.#ring = ring;
    this.#bodyBytesMax = bodyBytesMax;
    this.expected = expected;
  }

  drain(limit: number): number {
    return this.#ring.drain(this.read, limit);
  }

  readonly read = (type: number, offset: number, length: number): void => {
    const { view, buffer } = this.#ring;
    const whole =
      length === HEADER_BYTES + bodyBytesOf(this.expected, this.#bodyBytesMax) &&
      type === 1 + (this.expected % 7) &&
      view.getUint32(offset + 4, true) === this.expected &&
      view.getUint32(offset, true) === crc32(buffer.subarray(offset + 4, offset + length));
    if (!whole) this.bad += 1;
    this.expected = (this.expected + 1) >>> 0;
  };
}

function bodyBytesOf(sequence: number, max: number): number {
  return (Math.imul(sequence, 0x9e3779b1) >>> 11) % (max + 1);
}

/** Burns the thread's time, to move a step of it against the steps of another thread. */
export function pauseFor(microseconds: number): void {
  const until = performance.now() + microseconds / 1_000;
  while (performance.now() < until);
}
