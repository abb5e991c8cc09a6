import { DoorbellRinger } from '../../shm/doorbell.ts';
import { RingConsumer } from '../../shm/ring-consumer.ts';
import { RingProducer } from '../../shm/ring-producer.ts';
import { Outbox } from '../outbox.ts';
import type { ShardConnection } from '../shard-pool.ts';

/** Requests that are worth a wake-up of their own. */
const RECORDS_A_RING = 64;

interface Reader {
  readonly control: number;
  readonly payload: number;
  resolve(): void;
}

/** The main thread's ends of the rings to one shard. */
export class ShardLink {
  readonly shard: number;
  /** Publish frames; full is an answer (QUEUE_FULL). */
  readonly payload: RingProducer;
  /** Requests; full is an answer. */
  readonly control: RingProducer;
  /** Credits and the like on the control ring, which must not be lost. While it is blocked nothing new is opened at the shard (QUEUE_FULL). */
  readonly controlOutbox: Outbox;
  readonly fromControl: RingConsumer;
  readonly fromPayload: RingConsumer;
  readonly #ringer: DoorbellRinger;
  #unrung = 0;
  /** Told when the rings are read up to a position. */
  readonly #readers: Reader[] = [];

  constructor(connection: ShardConnection) {
    this.shard = connection.shard;
    this.payload = new RingProducer(connection.rings.mainPayload);
    this.control = new RingProducer(connection.rings.mainControl);
    this.controlOutbox = new Outbox(this.control);
    this.fromControl = new RingConsumer(connection.rings.toMainControl);
    this.fromPayload = new RingConsumer(connection.rings.toMainPayload);
    this.#ringer = new DoorbellRinger(connection.doorbell);
  }

  /** Resolves when what the shard wrote up to these positions has been read, or when its thread is dead. */
  whenRead(control: number, payload: number): Promise<void> {
    return new Promise((resolve) => {
      this.#readers.push({ control, payload, resolve });
      this.settleReaders();
    });
  }

  /** After each round of reading. */
  settleReaders(): void {
    for (let i = this.#readers.length - 1; i >= 0; i--) {
      const { control, payload, resolve } = this.#readers[i] as Reader;
      if (!this.fromControl.hasPassed(control) || !this.fromPayload.hasPassed(payload)) continue;
      this.#readers.splice(i, 1);
      resolve();
    }
  }

  /** The thread is dead: nothing more of it will be read. */
  close(): void {
    for (const { resolve } of this.#readers.splice(0)) resolve();
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

  /** For what is waited for: it is not put off to the end of the turn. */
  ringNow(): void {
    this.#unrung = 0;
    this.#ringer.ring();
  }

  ringIfDirty(): void {
    if (this.#unrung === 0) return;
    this.#unrung = 0;
    this.#ringer.ring();
  }
}
