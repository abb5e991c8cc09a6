/** Three Raft nodes in threads of this process, each with its log on the disk and its port: no store, no clients. */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import type { Member } from '../../src/replica/types.ts';
import { makeDataDirectory } from '../../test/support/broker.ts';
import type { FromRaftWorker, RaftCounts, RaftWorkerData, ToRaftWorker } from './messages.ts';

const PATIENCE_MS = 60_000;

class RaftThread {
  readonly #worker: Worker;
  readonly #exited: Promise<void>;
  readonly #waiting = new Map<string, { resolve: (message: FromRaftWorker) => void; reject: (error: Error) => void }>();
  #failure: Error | null = null;

  constructor(data: RaftWorkerData) {
    this.#worker = new Worker(new URL('./raft-worker.ts', import.meta.url), { workerData: data });
    this.#exited = new Promise((resolve) => this.#worker.once('exit', () => resolve()));
    this.#worker.on('message', (message: FromRaftWorker) => {
      if (message.kind === 'failed') this.#fail(new Error(message.why));
      else this.#waiting.get(message.kind)?.resolve(message);
      this.#waiting.delete(message.kind);
    });
    this.#worker.on('error', (error: Error) => this.#fail(error));
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    for (const { reject } of this.#waiting.values()) reject(error);
    this.#waiting.clear();
  }

  async expect<K extends FromRaftWorker['kind']>(
    kind: K,
    request: ToRaftWorker | null = null,
  ): Promise<Extract<FromRaftWorker, { kind: K }>> {
    if (this.#failure !== null) throw this.#failure;
    const answer = new Promise<FromRaftWorker>((resolve, reject) => this.#waiting.set(kind, { resolve, reject }));
    if (request !== null) this.#worker.postMessage(request);
    const timer = setTimeout(() => this.#fail(new Error(`no answer '${kind}' of a Raft thread`)), PATIENCE_MS);
    try {
      return (await answer) as Extract<FromRaftWorker, { kind: K }>;
    } finally {
      clearTimeout(timer);
    }
  }

  async stop(): Promise<void> {
    if (this.#failure === null) await this.expect('stopped', { kind: 'stop' }).catch(() => undefined);
    await this.#worker.terminate();
    await this.#exited;
  }
}

export interface TrioOptions {
  /** Of all three together. */
  readonly inFlight: number;
  readonly subjects: number;
}

export class RaftTrio {
  readonly #threads: RaftThread[] = [];
  readonly #folder = makeDataDirectory('broker-perf-raft-');

  /** All three vote. */
  static async start({ inFlight, subjects }: TrioOptions): Promise<RaftTrio> {
    const trio = new RaftTrio();
    try {
      const members: Member[] = [];
      for (const name of ['a', 'b', 'c']) {
        const joining = members.length === 0 ? null : [...members];
        const share = Math.ceil(inFlight / 3);
        const folder = join(trio.#folder, name);
        const thread = new RaftThread({ name, folder, clusterId: 'perf', joining, inFlight: share, subjects });
        trio.#threads.push(thread);
        const { own } = await thread.expect('open');
        if (joining !== null) await trio.#threads[0]?.expect('added', { kind: 'add', member: own });
        await thread.expect('started', { kind: 'start' });
        members.push(own);
      }
      await trio.#untilAllVote();
      return trio;
    } catch (error) {
      await trio.stop();
      throw error;
    }
  }

  async #untilAllVote(): Promise<void> {
    for (const end = performance.now() + PATIENCE_MS; performance.now() < end; ) {
      const answers = await Promise.all(this.#threads.map((thread) => thread.expect('voters', { kind: 'voters' })));
      if (answers.every(({ voters }) => voters === 3)) return;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    throw new Error('the Raft nodes do not become voters');
  }

  async run(): Promise<void> {
    await Promise.all(this.#threads.map((thread) => thread.expect('running', { kind: 'run' })));
  }

  async measure(): Promise<RaftCounts[]> {
    const answers = await Promise.all(this.#threads.map((thread) => thread.expect('measured', { kind: 'measure' })));
    return answers.map(({ counts }) => counts);
  }

  /** Ends the load, and sees that all three have the same. Throws if they do not come to it. */
  async end(): Promise<void> {
    await Promise.all(this.#threads.map((thread) => thread.expect('ended', { kind: 'end' })));
    for (const end = performance.now() + PATIENCE_MS; performance.now() < end; ) {
      const states = await Promise.all(this.#threads.map((thread) => thread.expect('state', { kind: 'state' })));
      const [first] = states;
      if (states.every(({ applied }) => applied === first?.applied)) {
        if (states.every(({ hash, open }) => hash === first?.hash && open === 0)) return;
        throw new Error(`the state machines differ: ${JSON.stringify(states)}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    throw new Error('the Raft nodes do not come to the same end of the log');
  }

  async stop(): Promise<void> {
    await Promise.all(this.#threads.map((thread) => thread.stop()));
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
