import type { DeliveryWindow } from '../../subscribe/delivery-window.ts';
import type { Pattern } from '../../subscribe/pattern.ts';
import type { StartPosition, SubjectGroup } from './subject-group.ts';

/** One subject on a consume stream. */
export class ConsumerReader<Stream> {
  readonly id: number;
  readonly group: SubjectGroup<ConsumerReader<Stream>>;
  readonly stream: Stream;
  readonly name: string;
  readonly start: StartPosition;
  /** Null until the shard has fixed where it starts. */
  window: DeliveryWindow | null = null;
  /** As the shard said last; -1: not known. */
  head = -1;
  settled = -1;
  /** Credit that the shard's reader is to be given back when the stream may send again, in bytes. */
  spentCredit = 0;
  /** Rises when the shard's reader begins anew: what it was sent before is not given back any more. */
  epoch = 0;
  /** A shard began anew while its stream might not send: it is subscribed again when it may. */
  isDetached = false;
  /** What has brought the subject, if it was a pattern. */
  readonly pattern: Pattern | null;
  /** For a look at it: what was written, whether its last run was read for it alone, and since when it is there (ms of performance.now()). */
  messages = 0;
  bytes = 0;
  isReading = true;
  readonly openedAt = performance.now();
  /** What the client was told in a heartbeat. */
  toldNext = -1;
  toldHead = -1;
  toldSettled = -1;

  constructor(
    id: number,
    group: SubjectGroup<ConsumerReader<Stream>>,
    stream: Stream,
    name: string,
    start: StartPosition,
    pattern: Pattern | null = null,
  ) {
    this.pattern = pattern;
    this.id = id;
    this.group = group;
    this.stream = stream;
    this.name = name;
    this.start = start;
  }
}
