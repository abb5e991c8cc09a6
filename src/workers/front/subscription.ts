import type { DeliveryStream } from '../../grpc/delivery-stream.ts';
import type { DeliveryWindow } from '../../subscribe/delivery-window.ts';
import type { StartPosition, SubjectGroup } from './subject-group.ts';

/** One Subscribe call on the main thread. */
export class Subscription {
  readonly id: number;
  readonly group: SubjectGroup<Subscription>;
  readonly stream: DeliveryStream;
  readonly start: StartPosition;
  /** Null until the shard has fixed where the subscription starts. */
  window: DeliveryWindow | null = null;
  /** Credit that the shard's reader can be given back, in bytes. */
  spentCredit = 0;
  /** Its shard was replaced while the stream did not drain: the new one knows nothing of it yet. */
  isDetached = false;
  /** Bytes that the stream had sent at the last sweep, and when that number last grew or nothing waited (ms of performance.now()). */
  sentSeen = -1;
  movedAt = performance.now();
  ended = false;
  /** For a look at it: what was written, whether its last run was read for it alone, and since when it is there (ms of performance.now()). */
  messages = 0;
  bytes = 0;
  isReading = true;
  readonly openedAt = performance.now();

  constructor(id: number, group: SubjectGroup<Subscription>, stream: DeliveryStream, start: StartPosition) {
    this.id = id;
    this.group = group;
    this.stream = stream;
    this.start = start;
  }
}
