import { REASON_CODE, type Reason } from '../../base/errors.ts';
import { DoorbellRinger } from '../../shm/doorbell.ts';
import { RingProducer } from '../../shm/ring-producer.ts';
import type { SubjectRef } from '../../storage/store.ts';
import { BORN_HEADER, POSITIONS_HEADER, ToMain } from '../link.ts';
import { Outbox } from '../outbox.ts';
import type { ShardTraces } from '../tracing/shard-traces.ts';
import type { OpenBatch } from './open-batch.ts';

const SUBSCRIBED_BYTES = 32;

/** Where a subject stands: its last id, and up to where every id has its verdict. */
interface SubjectPosition {
  readonly head: number;
  readonly resolvedTo: number;
}

/** The shard's answers to the main thread. Control records are never lost; the payload ring may be full, which the delivery side handles. */
export class MainPort {
  readonly control: Outbox;
  readonly payload: RingProducer;
  readonly payloadOutbox: Outbox;
  /** Null: nothing is traced. */
  traces: ShardTraces | null = null;
  readonly #ringer: DoorbellRinger;
  #sent = false;

  constructor(control: SharedArrayBuffer, payload: SharedArrayBuffer, mainDoorbell: SharedArrayBuffer) {
    this.control = new Outbox(new RingProducer(control));
    this.payload = new RingProducer(payload);
    this.payloadOutbox = new Outbox(this.payload);
    this.#ringer = new DoorbellRinger(mainDoorbell);
  }

  get blocked(): boolean {
    return this.control.blocked || this.payloadOutbox.blocked;
  }

  /** Positions of the rings behind all that was said, once nothing is `blocked`. */
  get ringPositions(): { readonly controlPosition: number; readonly payloadPosition: number } {
    return { controlPosition: this.control.position, payloadPosition: this.payloadOutbox.position };
  }

  /** The messages of one batch: call i got id base + i. */
  acks(base: number, calls: Uint32Array, count: number): void {
    const at = this.control.begin(ToMain.ACKS, 16 + count * 4);
    const view = this.control.view;
    view.setFloat64(at, base, true);
    view.setUint32(at + 8, count, true);
    this.#calls(at + 16, calls, count);
  }

  /** The same for a batch whose rows have several messages each. */
  ackRows(batch: OpenBatch): void {
    const at = this.control.begin(ToMain.ACK_ROWS, 16 + batch.rows * 8);
    const view = this.control.view;
    view.setFloat64(at, batch.base, true);
    view.setUint32(at + 8, batch.rows, true);
    for (let row = 0; row < batch.rows; row++) {
      view.setUint32(at + 16 + row * 8, batch.calls[row] as number, true);
      view.setUint32(at + 20 + row * 8, batch.messagesOf(row), true);
    }
    this.#end();
  }

  producer(call: number, lastSequence: number): void {
    const at = this.control.begin(ToMain.PRODUCER, 16);
    this.control.view.setFloat64(at, lastSequence, true);
    this.control.view.setUint32(at + 8, call, true);
    this.#end();
  }

  ack(call: number, id: number): void {
    const at = this.control.begin(ToMain.ACK_ONE, 16);
    this.control.view.setFloat64(at, id, true);
    this.control.view.setUint32(at + 8, call, true);
    this.#end();
  }

  refuse(call: number, reason: Reason): void {
    const at = this.control.begin(ToMain.REFUSE, 16);
    const view = this.control.view;
    view.setUint32(at, REASON_CODE[reason], true);
    view.setUint32(at + 4, 1, true);
    view.setUint32(at + 8, call, true);
    this.#end();
  }

  /** Call i with reason code reasons[i]. */
  refuseEach(calls: Uint32Array, reasons: Uint16Array): void {
    for (let start = 0; start < calls.length; ) {
      const reasonCode = reasons[start] as number;
      let end = start + 1;
      while (end < calls.length && reasons[end] === reasonCode) end += 1;
      const at = this.control.begin(ToMain.REFUSE, 8 + (end - start) * 4);
      const view = this.control.view;
      view.setUint32(at, reasonCode, true);
      view.setUint32(at + 4, end - start, true);
      this.#calls(at + 8, calls.subarray(start, end), end - start);
      start = end;
    }
  }

  /**
   * False while the payload ring has no room. It travels on the ring of the runs and never waits in an outbox, so that it comes before every run
   * of the subscription: a run for a stream whose start is not known there is dropped, and those after it leave a gap.
   */
  trySubscribed(subscription: number, next: number, at: SubjectPosition, isAwaiting: boolean): boolean {
    const offset = this.payload.claim(ToMain.SUBSCRIBED, SUBSCRIBED_BYTES);
    if (offset < 0) return false;
    const { view } = this.payload;
    view.setFloat64(offset, next, true);
    view.setUint32(offset + 8, subscription, true);
    view.setUint32(offset + 12, Number(isAwaiting), true);
    view.setFloat64(offset + 16, at.head, true);
    view.setFloat64(offset + 24, at.resolvedTo, true);
    this.payload.commit();
    this.touched();
    return true;
  }

  watched(token: number): void {
    const at = this.control.begin(ToMain.WATCHED, 8);
    this.control.view.setUint32(at, token, true);
    this.#end();
  }

  born({ bytes, hash }: SubjectRef): void {
    const at = this.control.begin(ToMain.BORN, BORN_HEADER + bytes.length);
    this.control.view.setUint32(at, hash, true);
    this.control.bytes.set(bytes, at + BORN_HEADER);
    this.#end();
  }

  positions(token: number, positions: readonly ({ readonly head: number; readonly settled: number } | null)[]): void {
    const at = this.control.begin(ToMain.POSITIONS, POSITIONS_HEADER + positions.length * 16);
    const view = this.control.view;
    view.setUint32(at, token, true);
    view.setUint32(at + 4, positions.length, true);
    positions.forEach((position, i) => {
      view.setFloat64(at + POSITIONS_HEADER + i * 16, position?.head ?? -1, true);
      view.setFloat64(at + POSITIONS_HEADER + i * 16 + 8, position?.settled ?? -1, true);
    });
    this.#end();
  }

  /** Travels with the runs, not on the control ring: what was sent before it is delivered before it. */
  unsubscribed(subscription: number, reason: Reason): void {
    const outbox = this.payloadOutbox;
    const at = outbox.begin(ToMain.UNSUBSCRIBED, 8);
    outbox.view.setUint32(at, subscription, true);
    outbox.view.setUint32(at + 4, REASON_CODE[reason], true);
    outbox.end();
    this.touched();
  }

  info(
    call: number,
    info: { first: number; head: number; settled: number; batches: number; bytes: number; everExpires: boolean },
  ): void {
    const at = this.control.begin(ToMain.INFO, 48);
    const view = this.control.view;
    view.setFloat64(at, info.first, true);
    view.setFloat64(at + 8, info.head, true);
    view.setFloat64(at + 16, info.settled, true);
    view.setFloat64(at + 24, info.batches, true);
    view.setFloat64(at + 32, info.bytes, true);
    view.setUint32(at + 40, call, true);
    view.setUint32(at + 44, info.everExpires ? 1 : 0, true);
    this.#end();
  }

  /** Deliveries were written to `payload` directly. */
  touched(): void {
    this.#sent = true;
  }

  /** Moves what waited, and rings the main thread once for everything of this round. */
  flush(): void {
    this.control.flush();
    this.payloadOutbox.flush();
    if (!this.#sent && !this.blocked) return;
    this.#sent = false;
    this.#ringer.ring();
  }

  #calls(offset: number, calls: Uint32Array, count: number): void {
    const bytes = this.control.bytes;
    // Offsets of ring records and of the outbox's buffers need not be multiples of 4 in the underlying memory: copy as bytes.
    bytes.set(new Uint8Array(calls.buffer, calls.byteOffset, count * 4), offset);
    this.#end();
  }

  #end(): void {
    this.control.end();
    this.#sent = true;
  }
}
