/** Nodes of ours that do nothing but gossip (test/support/gossip-node.ts), each a process. */
import { type ChildProcess, spawn } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { GossipFigures, GossipMember } from '../../src/workers/gossip/types.ts';
import type { Command, ProgramOptions } from '../support/gossip-node.ts';
import { killChild } from '../support/kill-child.ts';
import { ROOT } from '../support/source-tree.ts';
import { until } from '../support/until.ts';

const PROGRAM = join(ROOT, 'test', 'support', 'gossip-node.ts');
const LOG_LINES_MAX = 500;

export interface Answers {
  readonly acks: readonly string[];
  readonly responses: Readonly<Record<string, string>>;
}

export interface HeardEvent {
  readonly name: string;
  readonly payload: string;
}

export interface Usage {
  /** Microseconds. */
  readonly cpu: { readonly user: number; readonly system: number };
  readonly rss: number;
  readonly atMs: number;
}

interface StartOptions extends Omit<ProgramOptions, 'listen'> {
  readonly listen?: { readonly host: string; readonly port: number };
  /** A program and its arguments that turns into the node. */
  readonly under?: readonly string[];
}

export class GossipNode implements AsyncDisposable {
  readonly node: string;
  readonly #options: StartOptions;
  #child: ChildProcess | null = null;
  #port = 0;
  #lines: string[] = [];
  #events: HeardEvent[] = [];
  #nextId = 1;
  readonly #calls = new Map<number, { resolve: (result: unknown) => void; reject: (error: Error) => void }>();

  private constructor(options: StartOptions) {
    this.node = options.node;
    this.#options = options;
    this.#port = options.listen?.port ?? 0;
  }

  static async start(options: StartOptions): Promise<GossipNode> {
    const node = new GossipNode(options);
    try {
      await node.restart();
    } catch (error) {
      await node.kill();
      throw error;
    }
    return node;
  }

  /** HOST:PORT; stays the same over restarts that name no other. */
  get address(): string {
    return `${this.#listen.host}:${this.#port}`;
  }

  get pid(): number {
    return this.#child?.pid ?? 0;
  }

  get logs(): string {
    return this.#lines.join('\n');
  }

  get events(): readonly HeardEvent[] {
    return this.#events;
  }

  /** kill -9 of what runs, and a new process; on the same port if no other is named. */
  async restart(changes: Partial<Omit<ProgramOptions, 'node'>> = {}): Promise<void> {
    await this.kill();
    const { under = [], ...rest } = this.#options;
    const listen = { host: this.#listen.host, port: this.#port };
    const options: ProgramOptions = { ...rest, listen, ...changes };
    const [program, ...args] = [...under, process.execPath, PROGRAM, JSON.stringify(options)];
    const child = spawn(program as string, args, { cwd: ROOT, stdio: ['pipe', 'pipe', 'pipe'], env: environment() });
    this.#child = child;
    this.#port = 0;
    this.#events = [];
    const ended = { is: false };
    child.once('exit', () => {
      ended.is = true;
      for (const { reject } of this.#calls.values())
        reject(new Error(`gossip node ${this.node} has ended\n${this.logs}`));
      this.#calls.clear();
    });
    child.stdin?.on('error', () => undefined);
    if (child.stdout !== null) createInterface({ input: child.stdout }).on('line', (line) => this.#take(line));
    if (child.stderr !== null) createInterface({ input: child.stderr }).on('line', (line) => this.#keep(line));
    await until(
      () => this.#port !== 0 || ended.is,
      () => `gossip node ${this.node} is not ready\n${this.logs}`,
    );
    if (ended.is) throw new Error(`gossip node ${this.node} has ended\n${this.logs}`);
  }

  members(): Promise<GossipMember[]> {
    return this.call({ do: 'members' }) as Promise<GossipMember[]>;
  }

  /** Of one member, or `none`. */
  async status(node: string): Promise<string> {
    return (await this.members()).find((member) => member.node === node)?.status ?? 'none';
  }

  figures(): Promise<GossipFigures> {
    return this.call({ do: 'figures' }) as Promise<GossipFigures>;
  }

  usage(): Promise<Usage> {
    return this.call({ do: 'usage' }) as Promise<Usage>;
  }

  /** Resolves when one has answered. */
  async join(...seeds: readonly string[]): Promise<void> {
    await this.call({ do: 'join', seeds });
  }

  query(name: string, payload = '', timeoutMs = 1_000): Promise<Answers> {
    return this.call({ do: 'query', name, payload, timeoutMs }) as Promise<Answers>;
  }

  keys(operation: 'install-key' | 'use-key' | 'remove-key' | 'list-keys', key?: string): Promise<Answers> {
    return this.call(
      key === undefined ? { do: 'keys', operation } : { do: 'keys', operation, key },
    ) as Promise<Answers>;
  }

  /** Resolves with what the command answers; rejects if it fails or the process ends. */
  call(command: Command): Promise<unknown> {
    const id = this.#nextId++;
    const child = this.#child;
    if (child === null || child.exitCode !== null || child.signalCode !== null) {
      return Promise.reject(new Error(`gossip node ${this.node} does not run\n${this.logs}`));
    }
    return new Promise((resolve, reject) => {
      this.#calls.set(id, { resolve, reject });
      child.stdin?.write(`${JSON.stringify({ id, ...command })}\n`);
    });
  }

  pause(): void {
    this.#child?.kill('SIGSTOP');
  }

  resume(): void {
    this.#child?.kill('SIGCONT');
  }

  /** kill -9. */
  async kill(): Promise<void> {
    const child = this.#child;
    this.#child = null;
    await killChild(child);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
  }

  get #listen(): { readonly host: string; readonly port: number } {
    return this.#options.listen ?? { host: '127.0.0.1', port: 0 };
  }

  #take(line: string): void {
    const message = JSON.parse(line) as {
      readonly id?: number;
      readonly result?: unknown;
      readonly error?: string;
      readonly told?: string;
      readonly port?: number;
      readonly name?: string;
      readonly payload?: string;
    };
    if (message.id !== undefined) {
      const call = this.#calls.get(message.id);
      this.#calls.delete(message.id);
      if (message.error === undefined) call?.resolve(message.result);
      else call?.reject(new Error(message.error));
      return;
    }
    if (message.told === 'ready') this.#port = message.port ?? 0;
    if (message.told === 'event') this.#events.push({ name: message.name ?? '', payload: message.payload ?? '' });
    if (message.told === 'log') this.#keep(line);
  }

  #keep(line: string): void {
    this.#lines.push(line);
    if (this.#lines.length > LOG_LINES_MAX) this.#lines.shift();
  }
}

function environment(): Record<string, string | undefined> {
  const { NODE_OPTIONS: _options, NODE_TEST_CONTEXT: _context, ...rest } = process.env;
  return rest;
}
