import {
  closeSize,
  expiryWord,
  openPartsSize,
  openSize,
  partSize,
  producerSize,
  writeClose,
  writeOpen,
  writeOpenParts,
  writePart,
  writeProducer,
  writeRevoke,
  writeTrim,
} from '../../allot/commands.ts';
import { AllotVerdict } from '../../allot/verdicts.ts';
import { childContext } from '../../base/trace-context.ts';
import type { RowTrace } from '../tracing/trace-record.ts';
import { ANY_HEAD, type OpenBatch } from './open-batch.ts';
import type { RaftClient } from './raft-client.ts';
import type { ActiveSubject } from './subjects.ts';

/** Closes may wait this long for an open to travel with, in ms: they cause no fsync of their own for that time (design section 7, rule 4). */
const CLOSE_DELAY_MS = 50;

/** Writes the shard's commands for the state machine (src/allot/commands.ts). */
export class AllotRequests {
  readonly #raft: RaftClient;
  readonly #shard: number;
  #closesSince = 0;

  constructor(raft: RaftClient, shard: number) {
    this.#raft = raft;
    this.#shard = shard;
  }

  get blocked(): boolean {
    return this.#raft.blocked;
  }

  /** Asks for the ids of a sealed batch; returns the counter that the answer will carry. */
  openBatch(batch: OpenBatch): number {
    const { subject, messages, sealed, builder, parts, expectedHead } = batch;
    subject.everExpires ||= builder.hasExpiry;
    batch.expiresMax = builder.expiresMax;
    const expiry = expiryWord(builder.expiresMax, builder.hasExpiry);
    if (parts === null) return this.openPlain(subject, messages, sealed.length, expiry, expectedHead);
    const raft = this.#raft;
    const counter = raft.takeCounter();
    const { bytes, hash } = subject.ref;
    let size = openPartsSize(bytes.length, expectedHead >= 0);
    for (const part of parts) size += partSize(part === null ? 0 : part.producer.length);
    let at = raft.claim(size);
    at = writeOpenParts(
      raft.view,
      raft.bytes,
      at,
      bytes,
      hash,
      this.#shard,
      counter,
      messages,
      sealed.length,
      expiry,
      expectedHead,
      batch.rows,
    );
    for (let row = 0; row < batch.rows; row++) {
      const part = parts[row] ?? null;
      const count = batch.messagesOf(row);
      at =
        part === null
          ? writePart(raft.view, raft.bytes, at, count, null, 0, 0)
          : writePart(raft.view, raft.bytes, at, count, part.producer, part.sequence, part.checksum);
    }
    return counter;
  }

  /** The open of this counter is traced: for the trace of its first row. */
  trace(counter: number, row: RowTrace | null): void {
    if (row !== null) this.#raft.trace(counter, childContext(row.context, row.idsSpanId));
  }

  /** Asks for the last sequence of a producer; returns the counter that the answer will carry. */
  openProducer(producer: Uint8Array, mayBeNew: boolean): number {
    const raft = this.#raft;
    const counter = raft.takeCounter();
    const at = raft.claim(producerSize(producer.length));
    writeProducer(raft.view, raft.bytes, at, producer, this.#shard, counter, mayBeNew);
    this.send();
    return counter;
  }

  openPlain(
    subject: ActiveSubject,
    count: number,
    byteCount: number,
    expiry: number,
    expectedHead: number = ANY_HEAD,
  ): number {
    const raft = this.#raft;
    const counter = raft.takeCounter();
    const { bytes, hash } = subject.ref;
    const at = raft.claim(openSize(bytes.length, expectedHead >= 0));
    writeOpen(raft.view, raft.bytes, at, bytes, hash, this.#shard, counter, count, byteCount, expiry, expectedHead);
    return counter;
  }

  closeStored(subject: ActiveSubject, base: number): void {
    this.#close(subject, base, AllotVerdict.STORED);
  }

  closeVoid(subject: ActiveSubject, base: number): void {
    this.#close(subject, base, AllotVerdict.VOID);
  }

  revoke(subject: ActiveSubject, base: number): void {
    const raft = this.#raft;
    const { bytes, hash } = subject.ref;
    const at = raft.claim(closeSize(bytes.length));
    writeRevoke(raft.view, raft.bytes, at, bytes, hash, base);
    this.send();
  }

  trim(subject: ActiveSubject, first: number): void {
    const raft = this.#raft;
    const { bytes, hash } = subject.ref;
    const at = raft.claim(closeSize(bytes.length));
    writeTrim(raft.view, raft.bytes, at, bytes, hash, first);
    this.send();
  }

  /** Passes on what was gathered, closes too. */
  send(): void {
    this.#closesSince = 0;
    this.#raft.send();
  }

  /** Sends closes that nothing else has taken along. `now` in ms. */
  maybeSendCloses(now: number): void {
    if (this.#closesSince > 0 && now - this.#closesSince >= CLOSE_DELAY_MS && !this.#raft.blocked) this.send();
  }

  get closesWait(): boolean {
    return this.#closesSince > 0;
  }

  #close(subject: ActiveSubject, base: number, verdict: number): void {
    const raft = this.#raft;
    const { bytes, hash } = subject.ref;
    const at = raft.claim(closeSize(bytes.length));
    writeClose(raft.view, raft.bytes, at, bytes, hash, base, verdict);
    if (this.#closesSince === 0) this.#closesSince = performance.now();
  }
}
