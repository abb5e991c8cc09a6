/** A broker process under load with the checker beside it: what the tests of single faults share. */
import assert from 'node:assert/strict';
import { type BrokerOptions, BrokerProcess } from '../support/broker.ts';
import { type Counts, History, type Violation } from '../support/checker.ts';
import { BrokerClient } from '../support/client.ts';
import { pause, until } from '../support/until.ts';
import { delivered, HOT_SUBJECT, KillLoad, reader, readStreams } from './kill-load.ts';

const STREAMS_TIMEOUT_MS = 60_000;
/** A subscriber that stays through every fault gets this long for what is still on its way. */
const CATCH_UP_MS = 60_000;
/** Only ends a wait that would never end. */
const LOADED_MS_MAX = 300_000;

export interface LogLine {
  readonly level: string;
  /** Epoch ms. */
  readonly at: number;
  readonly message: string;
  readonly reason: string;
  readonly error: string;
  /** Node's id of a shard's thread, as text. */
  readonly thread: string;
}

export class FaultRig {
  readonly broker: BrokerProcess;
  readonly history = new History();
  readonly load: KillLoad;
  #witness: { readonly client: BrokerClient; readonly stream: number } | null = null;
  #freshSubjects = 0;

  private constructor(broker: BrokerProcess, seed: number) {
    this.broker = broker;
    this.load = new KillLoad(this.history, seed, `s${seed}`);
  }

  /** A broker that is not running yet. */
  static async create(options: BrokerOptions, seed = 1): Promise<FaultRig> {
    const flags = [...(options.flags ?? []), '--log-format', 'json'];
    return new FaultRig(await BrokerProcess.create({ logLinesMax: 4_000, ...options, flags }), seed);
  }

  static async start(options: BrokerOptions = {}, seed = 1): Promise<FaultRig> {
    const rig = await FaultRig.create(options, seed);
    await rig.broker.restart();
    return rig;
  }

  /** Begins the load, and once the witness: a subscriber from the beginning whose stream must outlive every fault. */
  startLoad(options: { readonly witness: boolean } = { witness: false }): void {
    if (options.witness && this.#witness === null) this.#watch();
    this.#freshSubjects += 1;
    this.load.start(this.broker.address, `fault.fresh.${this.#freshSubjects}`);
  }

  /** With the load running: until so many more of its messages are acknowledged, however long this machine takes for them. */
  async loaded(count: number): Promise<void> {
    const enough = this.load.acked + count;
    await until(
      () => this.load.acked >= enough || !this.broker.running,
      () => `${this.load.acked - enough + count} of ${count} messages were acknowledged\n${this.broker.logs}`,
      LOADED_MS_MAX,
    );
    assert.ok(this.broker.running, this.broker.logs);
  }

  #watch(): void {
    const client = new BrokerClient(this.broker.address);
    const start = { at: 'earliest' } as const;
    const stream = this.history.openStream({ name: 'witness', subject: HOT_SUBJECT, start });
    this.#witness = { client, stream };
    client.subscribe(HOT_SUBJECT, start, {
      onMessage: (message) => {
        this.history.deliver(stream, delivered(message));
        this.witnessed = message.id;
      },
      onEnd: (error) => {
        this.witnessEnd = error;
      },
    });
  }

  /** Where the witness stands, and why its stream ended (undefined: it has not). */
  witnessed = 0;
  witnessEnd: Error | null | undefined;

  /** With the load stopped: retries what has no answer, publishes a last message, and waits until the witness has it. Then a missing id is a gap. */
  async catchUp(): Promise<void> {
    assert(this.#witness !== null, 'there is no witness');
    const { client, stream } = this.#witness;
    await this.load.settle(client);
    await this.load.publishLast(client);
    const until = performance.now() + CATCH_UP_MS;
    while (this.witnessed < this.history.highestMessage(HOT_SUBJECT) && performance.now() < until) await pause(10);
    this.history.completeStream(stream);
    assert.equal(this.witnessEnd, undefined, `the stream of the witness ended: ${this.witnessEnd}`);
    client.close();
    this.#witness = null;
  }

  /** With the broker up and the load stopped: retries what has no answer, reads everything back from the start, and judges. */
  async judge(): Promise<{ readonly violations: readonly Violation[]; readonly counts: Counts }> {
    const client = new BrokerClient(this.broker.address);
    try {
      await this.load.settle(client);
      await this.history.readBack(reader(client), { from: 'start' });
      await readStreams(client, this.history, STREAMS_TIMEOUT_MS);
    } finally {
      client.close();
    }
    return this.history.judge();
  }

  /** The promises were kept, and there was something to promise. */
  async assertKept(ackedMin: number): Promise<Counts> {
    const { violations, counts } = await this.judge();
    assert.deepEqual(violations, []);
    assert.ok(counts.acked >= ackedMin, `only ${counts.acked} messages were acknowledged: no load`);
    return counts;
  }

  /** What the broker has logged (the newest lines). */
  get lines(): LogLine[] {
    return logLines(this.broker.logs);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#witness?.client.close();
    await this.broker.kill();
    await this.load.stop();
    await this.broker.dispose();
  }
}

/** The lines of a log that are JSON. */
export function logLines(log: string): LogLine[] {
  return log.split('\n').flatMap((line) => {
    if (!line.startsWith('{')) return [];
    const fields = JSON.parse(line) as Record<string, unknown>;
    const text = (name: string): string => String(fields[name] ?? '');
    return [
      {
        level: text('level'),
        at: Date.parse(text('time')),
        message: text('msg'),
        reason: text('reason'),
        error: text('error'),
        thread: text('thread'),
      },
    ];
  });
}

/** The value, or null if it takes longer. Leaves no timer behind. */
export async function within<T>(promise: Promise<T>, ms: number): Promise<T | null> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<null>((resolve) => {
    timer = setTimeout(resolve, ms, null);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

export { pause, until };
