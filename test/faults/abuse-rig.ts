/** A broker with a good client and attackers: what the client notices of an attack, and what it costs the broker. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { BrokerProcess } from '../support/broker.ts';
import { pause, until } from '../support/until.ts';
import { GoodClient, type Seen } from './abuse-client.ts';
import type { Attack } from './attacks/attacker.ts';

const CHILD = fileURLToPath(new URL('./attacks/child.ts', import.meta.url));
const LOOK_MS = 50;
const STOP_MS_MAX = 10_000;
/** A machine under attack is slow to start anything. */
export const READY_MS_MAX = 120_000;
/** Files that the broker may open for itself meanwhile. */
const HANDLES_OWN = 4;
/** Lines of the log that are kept: more than any attack may cause. */
const LINES_MAX = 20_000;

/** What the broker has open, and the memory of its process in bytes. */
export interface Look {
  readonly rss: number;
  readonly handles: number;
  readonly connections: number;
}

export interface Attacked {
  readonly seen: Seen;
  readonly before: Look;
  /** The most while it lasted; of connections those at its end. */
  readonly peak: Look;
  /** What the attacker says that it did. */
  readonly tally: Readonly<Record<string, number>>;
}

class AttackerProcess {
  readonly #child: ChildProcess;
  readonly #output: Promise<string>;
  readonly #begun = Promise.withResolvers<void>();

  constructor(attack: Attack, broker: BrokerProcess, seed: number) {
    const args = [CHILD, attack.name, broker.address, broker.adminAddress, String(seed)];
    this.#child = spawn(process.execPath, args, { stdio: ['pipe', 'pipe', 'inherit'] });
    // One that has died has no input.
    this.#child.stdin?.on('error', () => undefined);
    this.#output = this.#read();
  }

  /** It is there and attacks, or could not. */
  get begun(): Promise<void> {
    return this.#begun.promise;
  }

  async #read(): Promise<string> {
    let text = '';
    const ended = once(this.#child, 'close');
    this.#child.stdout?.setEncoding('utf8').on('data', (more: string) => {
      text += more;
      if (text.includes('\n')) this.#begun.resolve();
    });
    await ended;
    this.#begun.resolve();
    return text.slice(text.indexOf('\n') + 1);
  }

  /** What it did; empty if it had to be killed. */
  async stop(): Promise<Record<string, number>> {
    this.#child.stdin?.end();
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), STOP_MS_MAX);
    const text = await this.#output;
    clearTimeout(timer);
    return text === '' ? {} : (JSON.parse(text) as Record<string, number>);
  }
}

export class AbuseRig {
  readonly broker: BrokerProcess;
  readonly client: GoodClient;
  readonly #seed: number;
  readonly #stack = new AsyncDisposableStack();

  private constructor(broker: BrokerProcess, seed: number, patienceMs: number | undefined) {
    this.broker = broker;
    this.client = new GoodClient(broker.address, patienceMs);
    this.#seed = seed;
    this.#stack.use(broker);
    this.#stack.defer(() => this.client.close());
  }

  /** `patienceMs`: how long a call of the client may take. */
  static async start(flags: readonly string[], seed: number, patienceMs?: number): Promise<AbuseRig> {
    const broker = await BrokerProcess.create({
      flags: ['--shards', '1', '--log-format', 'json', ...flags],
      logLinesMax: LINES_MAX,
      readyTimeoutMs: READY_MS_MAX,
    });
    const rig = new AbuseRig(broker, seed, patienceMs);
    try {
      await broker.restart();
      await rig.client.start();
    } catch (error) {
      await rig[Symbol.asyncDispose]();
      throw error;
    }
    return rig;
  }

  async measure(ms: number, isEnough: () => Promise<boolean> = async () => true): Promise<Seen> {
    this.client.begin();
    await pause(ms);
    await until(isEnough, () => 'the attack has not done what it is for');
    return await this.client.end();
  }

  /** What the client sees while the attack is on this broker, or on another one beside it. It lasts `ms`, and until it `isEnough`. */
  async attack(
    attack: Attack,
    ms: number,
    { victim = this.broker, isEnough }: { victim?: BrokerProcess; isEnough?: () => Promise<boolean> } = {},
  ): Promise<Attacked> {
    const before = await this.look();
    let { rss, handles } = before;
    const watch = setInterval(() => {
      const now = this.#process();
      rss = Math.max(rss, now.rss);
      handles = Math.max(handles, now.handles);
    }, LOOK_MS);
    const attacker = new AttackerProcess(attack, victim, this.#seed);
    try {
      await attacker.begun;
      const seen = await this.measure(ms, isEnough);
      const { connections } = await this.look();
      return { seen, before, peak: { rss, handles, connections }, tally: await attacker.stop() };
    } finally {
      clearInterval(watch);
      await attacker.stop();
    }
  }

  /** Waits until so much is open again as there was. */
  async restored({ connections, handles }: Look, timeoutMs: number): Promise<void> {
    let now = await this.look();
    await until(
      async () => {
        now = await this.look();
        return now.connections <= connections && now.handles <= handles + HANDLES_OWN;
      },
      () => `of ${connections} connections and ${handles} handles there are ${now.connections} and ${now.handles}`,
      timeoutMs,
    );
  }

  /** The admin port may be what is attacked: then it is asked again. */
  async look(): Promise<Look> {
    return { ...this.#process(), connections: await this.metric('broker_connections') };
  }

  /** The sum over all its labels. */
  async metric(name: string, labels = ''): Promise<number> {
    let text: string | null = null;
    while (text === null) {
      text = await fetch(`http://${this.broker.adminAddress}/metrics`).then(
        (response) => (response.ok ? response.text() : null),
        () => null,
      );
      if (text === null) await pause(LOOK_MS);
    }
    const lines = text.split('\n').filter((line) => line.startsWith(`${name} `) || line.startsWith(`${name}{`));
    return lines
      .filter((line) => line.includes(labels))
      .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' ') + 1)), 0);
  }

  get lines(): readonly string[] {
    return this.broker.logs.split('\n');
  }

  #process(): { rss: number; handles: number } {
    const { pid } = this.broker;
    const status = readFileSync(`/proc/${pid}/status`, 'utf8');
    const rss = Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1]) * 1_024;
    return { rss, handles: readdirSync(`/proc/${pid}/fd`).length };
  }

  /** What the client was promised and did not get. Ends client and broker. */
  async end(): Promise<readonly string[]> {
    const violations = [...(await this.client.judge())];
    if (this.client.subscriptionEnd !== undefined) {
      violations.push(`the subscription ended: ${this.client.subscriptionEnd}`);
    }
    if (this.client.reopened > 0) violations.push(`the publish stream was ended ${this.client.reopened} times`);
    const exit = await this.broker.stop();
    if (exit.code !== 0) violations.push(`the broker ended with ${exit.signal ?? exit.code}`);
    return violations;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#stack.disposeAsync();
  }
}
