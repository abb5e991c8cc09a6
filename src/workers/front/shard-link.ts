import { DoorbellRinger } from '../../shm/doorbell.ts';
import { RingConsumer } from '../../shm/ring-consumer.ts';
import { RingProducer } from '../../shm/ring-producer.ts';
import { Outbox } from '../outbox.ts';
import type { ShardConnection } from '../shard-pool.ts';

/** The main thread's ends of the rings to one shard. */
export class ShardLink {
  readonly shard: number;
  /** Publish frames; full is an answer (QUEUE_FULL). */
  readonly payload: RingProducer;
  /** Requests; full is an answer. */
  readonly control: RingProducer;
  /** Credits and the like on the control ring, which must not be lost. */
  readonly controlOutbox: Outbox;
  readonly fromControl: RingConsumer;
  readonly fromPayload: RingConsumer;
  readonly #ringer: DoorbellRinger;
  #dirty = false;

  constructor(connection: ShardConnection) {
    this.shard = connection.shard;
    this.payload = new RingProducer(connection.rings.mainPayload);
    this.control = new RingProducer(connection.rings.mainControl);
    this.controlOutbox = new Outbox(this.control);
    this.fromControl = new RingConsumer(connection.rings.toMainControl);
    this.fromPayload = new RingConsumer(connection.rings.toMainPayload);
    this.#ringer = new DoorbellRinger(connection.doorbell);
  }

  /** Something was written; the bell is rung once for all that one turn of the event loop writes. Returns true the first time. */
  markDirty(): boolean {
    const first = !this.#dirty;
    this.#dirty = true;
    return first;
  }

  ringIfDirty(): void {
    if (!this.#dirty) return;
    this.#dirty = false;
    this.#ringer.ring();
  }
}
