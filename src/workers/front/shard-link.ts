import { DoorbellRinger } from '../../shm/doorbell.ts';
import { RingConsumer } from '../../shm/ring-consumer.ts';
import { RingProducer } from '../../shm/ring-producer.ts';
import { Outbox } from '../outbox.ts';
import type { ShardConnection } from '../shard-pool.ts';

/** Requests that are worth a wake-up of their own. */
const RECORDS_A_RING = 64;

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
  #unrung = 0;

  constructor(connection: ShardConnection) {
    this.shard = connection.shard;
    this.payload = new RingProducer(connection.rings.mainPayload);
    this.control = new RingProducer(connection.rings.mainControl);
    this.controlOutbox = new Outbox(this.control);
    this.fromControl = new RingConsumer(connection.rings.toMainControl);
    this.fromPayload = new RingConsumer(connection.rings.toMainPayload);
    this.#ringer = new DoorbellRinger(connection.doorbell);
  }

  /**
   * A record was written. The bell is rung for many at once: at the end of the turn of the event loop, or earlier if there are enough, because a
   * turn that reads all connections takes milliseconds, in which the shard should be at work. Returns true if the end of the turn has to ring.
   */
  markDirty(): boolean {
    this.#unrung += 1;
    if (this.#unrung < RECORDS_A_RING) return this.#unrung === 1;
    this.ringIfDirty();
    return false;
  }

  ringIfDirty(): void {
    if (this.#unrung === 0) return;
    this.#unrung = 0;
    this.#ringer.ring();
  }
}
