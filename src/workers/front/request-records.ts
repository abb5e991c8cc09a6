/** Writers of the records of requests on the rings to a shard (link.ts). */
import type { CallTrace } from '../../base/trace-context.ts';
import {
  CREDIT_BYTES,
  DRAIN_HEADER,
  FETCH_HEADER,
  INFO_HEADER,
  OPEN_PRODUCER_HEADER,
  PUBLISH_HEADER,
  SUBSCRIBE_HEADER,
  ToShard,
  TRACE_BYTES,
  TRIM_HEADER,
} from '../link.ts';
import type { ShardLink } from './shard-link.ts';
import type { Seat, StartPosition } from './subject-group.ts';

/** A trace in front of what is traced. */
export function putTrace(view: DataView, bytes: Uint8Array, at: number, { receivedAt, context }: CallTrace): void {
  view.setFloat64(at, receivedAt, true);
  bytes.set(context, at + 8);
}

/** Bytes of a PUBLISH. */
export function publishBytes(request: Buffer, tail: Uint8Array, trace: CallTrace | null): number {
  return PUBLISH_HEADER + request.length + tail.length + (trace === null ? 0 : TRACE_BYTES);
}

/** A PUBLISH at the place that was claimed. `tail`: fields behind the request (address.ts). */
export function putPublish(
  link: ShardLink,
  at: number,
  call: number,
  hash: number,
  request: Buffer,
  tail: Uint8Array,
  deadlineMs: number,
  isBusy: boolean,
  trace: CallTrace | null,
): void {
  const { view, bytes } = link.payload;
  view.setFloat64(at, deadlineMs, true);
  view.setFloat64(at + 8, performance.now(), true);
  view.setUint32(at + 16, call, true);
  view.setUint32(at + 20, hash, true);
  view.setUint32(at + 24, isBusy ? 1 : 0, true);
  view.setUint32(at + 28, trace === null ? 0 : TRACE_BYTES, true);
  if (trace !== null) putTrace(view, bytes, at + PUBLISH_HEADER, trace);
  const requestAt = at + PUBLISH_HEADER + (trace === null ? 0 : TRACE_BYTES);
  bytes.set(request, requestAt);
  if (tail.length > 0) bytes.set(tail, requestAt + request.length);
  link.payload.commit();
}

/** A place for a request on the control ring, or -1; what waits in the outbox goes first. */
export function claimControl(link: ShardLink, type: number, length: number): number {
  return link.controlOutbox.blocked ? -1 : link.control.claim(type, length);
}

/** A FETCH or INCREMENT at the place that was claimed. */
export function putLookUp(
  link: ShardLink,
  at: number,
  call: number,
  hash: number,
  subject: Buffer,
  id: number,
  deadlineMs: number,
): void {
  const { view } = link.control;
  view.setFloat64(at, deadlineMs, true);
  view.setFloat64(at + 8, id, true);
  view.setUint32(at + 16, call, true);
  view.setUint32(at + 20, hash, true);
  link.control.bytes.set(subject, at + FETCH_HEADER);
  link.control.commit();
}

/** An OPEN_PRODUCER. */
export function putOpenProducer(link: ShardLink, call: number, producer: Buffer, mayBeNew: boolean): void {
  const at = link.controlOutbox.begin(ToShard.OPEN_PRODUCER, OPEN_PRODUCER_HEADER + producer.length);
  const { view, bytes } = link.controlOutbox;
  view.setUint32(at, call, true);
  view.setUint32(at + 4, mayBeNew ? 1 : 0, true);
  bytes.set(producer, at + OPEN_PRODUCER_HEADER);
  link.controlOutbox.end();
}

/** A TRIM (with `first`) or INFO. */
export function putAdministration(
  link: ShardLink,
  type: number,
  call: number,
  subject: Buffer,
  hash: number,
  first: number,
): void {
  const header = type === ToShard.TRIM ? TRIM_HEADER : INFO_HEADER;
  const at = link.controlOutbox.begin(type, header + subject.length);
  const { view, bytes } = link.controlOutbox;
  if (type === ToShard.TRIM) {
    view.setFloat64(at, first, true);
    view.setUint32(at + 8, call, true);
    view.setUint32(at + 12, hash, true);
  } else {
    view.setUint32(at, call, true);
    view.setUint32(at + 4, hash, true);
  }
  bytes.set(subject, at + header);
  link.controlOutbox.end();
}

export function putSubscribe(link: ShardLink, { group, id }: Seat, start: StartPosition, creditBytes: number): void {
  const at = link.controlOutbox.begin(ToShard.SUBSCRIBE, SUBSCRIBE_HEADER + group.subject.length);
  const { view, bytes } = link.controlOutbox;
  view.setFloat64(at, start.value, true);
  view.setUint32(at + 8, id, true);
  view.setUint32(at + 12, group.id, true);
  view.setUint32(at + 16, group.hash, true);
  view.setUint32(at + 20, start.kind, true);
  view.setUint32(at + 24, creditBytes, true);
  view.setUint32(at + 28, group.encoding, true);
  view.setFloat64(at + 32, start.from ?? 0, true);
  bytes.set(group.subject, at + SUBSCRIBE_HEADER);
  link.controlOutbox.end();
}

export function putCredit(link: ShardLink, id: number, kind: number, next: number, creditBytes: number): void {
  const at = link.controlOutbox.begin(ToShard.CREDIT, CREDIT_BYTES);
  const { view } = link.controlOutbox;
  view.setFloat64(at, next, true);
  view.setUint32(at + 8, id, true);
  view.setUint32(at + 12, creditBytes, true);
  view.setUint32(at + 16, kind, true);
  link.controlOutbox.end();
}

export function putUnsubscribe(link: ShardLink, id: number): void {
  const at = link.controlOutbox.begin(ToShard.UNSUBSCRIBE, 8);
  link.controlOutbox.view.setUint32(at, id, true);
  link.controlOutbox.end();
}

/** A DRAIN behind everything that was sent on both rings. */
export function putDrain(link: ShardLink, token: number, slots: readonly number[]): void {
  const at = link.controlOutbox.begin(ToShard.DRAIN, DRAIN_HEADER + slots.length * 2);
  const { view } = link.controlOutbox;
  view.setUint32(at, token, true);
  view.setUint32(at + 4, link.payload.position, true);
  view.setUint32(at + 8, slots.length, true);
  slots.forEach((slot, i) => {
    view.setUint16(at + DRAIN_HEADER + i * 2, slot, true);
  });
  link.controlOutbox.end();
}
