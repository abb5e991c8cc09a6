import type { Reason } from '../../base/errors.ts';
import { innerSubjectFault, spaceLength } from '../../base/subject-space.ts';
import { encodeBroadcastMessage, PublishScan, type ScanLimits, scanPublish } from '../../grpc/codec.ts';
import type { Address } from './address.ts';
import type { Subscriptions } from './subscriptions.ts';

/**
 * Messages that are not stored: to whoever subscribes to the subject just now. None passes a shard, and none waits, so that they are taken also while the
 * shards have too much to do.
 */
export class Broadcasts {
  readonly #subscriptions: Pick<Subscriptions, 'broadcast'>;
  readonly #limits: ScanLimits;
  readonly #scan = new PublishScan();

  constructor(subscriptions: Pick<Subscriptions, 'broadcast'>, limits: ScanLimits) {
    this.#subscriptions = subscriptions;
    this.#limits = limits;
  }

  /** To the subscribers of this node alone, by the subject inside the broker. Null, or what is wrong with it: then nobody has got it. */
  here(request: Buffer): Reason | null {
    const scan = this.#scan;
    const malformed = scanPublish(request, 0, request.length, scan, this.#limits);
    if (malformed !== null) return malformed;
    const fault = innerSubjectFault(request, scan.subjectStart, scan.subjectEnd);
    if (fault !== null) return fault;
    const subject = request.subarray(scan.subjectStart, scan.subjectEnd);
    // What is sent is named as its subscribers call it.
    scan.subjectStart += spaceLength(request, scan.subjectStart, scan.subjectEnd);
    this.#subscriptions.broadcast(subject, encodeBroadcastMessage(request, scan));
    return null;
  }
}

/** A request as other nodes take it: by its subject inside the broker. */
export function innerRequest(request: Buffer, { tail }: Pick<Address, 'tail'>): Buffer {
  return tail.length === 0 ? request : Buffer.concat([request, tail]);
}
