/** Writers of the records of requests on the rings to a shard (link.ts). */
import {
  DRAIN_HEADER,
  FETCH_HEADER,
  INFO_HEADER,
  PUBLISH_HEADER,
  SUBSCRIBE_HEADER,
  ToShard,
  TRIM_HEADER,
} from '../link.ts';
import type { ShardLink } from './shard-link.ts';
import type { Seat, StartPosition } from './subject-group.ts';

/** A PUBLISH at the place that was claimed. */
export function putPublish(
  link: ShardLink,
  at: number,
  call: number,
  hash: number,
  request: Buffer,
  deadlineMs: number,
  isBusy: boolean,
): void {
  const { view } = link.payload;
  view.setFloat64(at, deadlineMs, true);
  view.setFloat64(at + 8, performance.now(), true);
  view.setUint32(at + 16, call, true);
  view.setUint32(at + 20, hash, true);
  view.setUint32(at + 24, isBusy ? 1 : 0, true);
  link.payload.bytes.set(request, at + PUBLISH_HEADER);
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
