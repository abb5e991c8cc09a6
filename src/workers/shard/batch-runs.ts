import { BatchView } from '../../batch/batch-view.ts';
import { SectionCutter } from '../../batch/section-cutter.ts';
import { deliveryBytes, writeDelivery, writeFrameHeader } from '../../grpc/consumer-codec.ts';
import { FRAME_HEADER_BYTES } from '../../grpc/frame.ts';
import { BATCH_RUN_HEADER, ToMain } from '../link.ts';
import type { MainPort } from './main-port.ts';

type RunType = typeof ToMain.GROUP_BATCHES | typeof ToMain.READER_BATCHES;

/** A part of a stored batch that waits to be written to the ring; its bytes are the reader's, of this turn only. */
interface Section {
  readonly source: Uint8Array;
  readonly start: number;
  readonly end: number;
  readonly firstId: number;
  readonly count: number;
  readonly publishedAt: number;
}

/**
 * Gathers stored batches of one subject into runs for consume streams: each run is one gRPC frame of deliveries, written to the payload ring
 * from where the batches lie. Use: `begin`, then `add` and `flush`, all in one turn.
 */
export class BatchRuns {
  readonly #main: MainPort;
  readonly #runBytes: number;
  readonly #view = new BatchView();
  readonly #cutter = new SectionCutter();
  #sections: Section[] = [];
  #type: RunType = ToMain.GROUP_BATCHES;
  #target = 0;
  #subject: Uint8Array = new Uint8Array(0);
  /** First id that no run of this target covers yet. */
  #from = 0;
  #pendingBytes = 0;
  #pendingMessages = 0;
  #sentBytes = 0;
  #neededBytes = 0;

  /** `runBytes`: a run that has reached it is sent; a single message may be larger. */
  constructor(main: MainPort, runBytes: number) {
    this.#main = main;
    this.#runBytes = runBytes;
  }

  begin(type: RunType, target: number, subject: Uint8Array, from: number): void {
    this.#type = type;
    this.#target = target;
    this.#subject = subject;
    this.#from = from;
    this.#sections.length = 0;
    this.#pendingBytes = 0;
    this.#pendingMessages = 0;
    this.#sentBytes = 0;
    this.#neededBytes = 0;
  }

  /** First id that was not sent. */
  get from(): number {
    return this.#from;
  }

  /** Bytes of frames since `begin`: sent, or waiting for `flush`. */
  get bytes(): number {
    return this.#sentBytes + this.#pendingBytes;
  }

  /** Bytes of frames that were sent since `begin`: what they cost their reader. */
  get sentBytes(): number {
    return this.#sentBytes;
  }

  /** What the ring had no room for; 0: it had. */
  get neededBytes(): number {
    return this.#neededBytes;
  }

  /** Adds what may be read of the stored batch from id `from` on. False when the ring is full: then what waited is given up, and `from` says where to go on. */
  add(bytes: Uint8Array, from: number, now: number): boolean {
    const view = this.#view;
    const cutter = this.#cutter;
    view.wrap(bytes, 0);
    cutter.wrap(view, from, this.#runBytes, now);
    const { publishedAt } = view;
    while (cutter.next()) {
      const { start, end, firstId, count } = cutter;
      const section = { source: bytes, start, end, firstId, count, publishedAt };
      const size = deliveryBytes(this.#subject.length, section, end - start);
      const isOver = this.#pendingBytes + size > this.#runBytes;
      if (isOver && this.#sections.length > 0 && !this.flush(firstId)) return false;
      if (this.#sections.length === 0) this.#pendingBytes = FRAME_HEADER_BYTES;
      this.#sections.push(section);
      this.#pendingBytes += size;
      this.#pendingMessages += count;
    }
    return true;
  }

  /** Sends what waits as a run of [from, to): ids in it that were not added are void, expired or trimmed. False when the ring is full. */
  flush(to: number): boolean {
    if (to <= this.#from) return true;
    const frameBytes = this.#pendingBytes;
    const at = this.#main.payload.claim(this.#type, BATCH_RUN_HEADER + frameBytes);
    if (at < 0) {
      this.#neededBytes = BATCH_RUN_HEADER + frameBytes;
      this.#sections.length = 0;
      this.#pendingBytes = 0;
      this.#pendingMessages = 0;
      return false;
    }
    this.#write(at, to, frameBytes);
    this.#main.payload.commit();
    this.#main.touched();
    this.#sentBytes += frameBytes;
    this.#from = to;
    this.#sections.length = 0;
    this.#pendingBytes = 0;
    this.#pendingMessages = 0;
    return true;
  }

  #write(at: number, to: number, frameBytes: number): void {
    const { view, bytes } = this.#main.payload;
    let sectionBytes = 0;
    if (frameBytes > 0) {
      let offset = writeFrameHeader(bytes, at + BATCH_RUN_HEADER, frameBytes - FRAME_HEADER_BYTES);
      for (const section of this.#sections) {
        const { source, start, end } = section;
        offset = writeDelivery(bytes, offset, this.#subject, section, source, start, end);
        sectionBytes += end - start;
      }
    }
    view.setFloat64(at, this.#from, true);
    view.setFloat64(at + 8, to, true);
    view.setUint32(at + 16, this.#target, true);
    view.setUint32(at + 20, this.#pendingMessages, true);
    view.setFloat64(at + 24, this.#sections[0]?.firstId ?? to, true);
    view.setUint32(at + 32, sectionBytes, true);
    view.setUint32(at + 36, 0, true);
  }
}
