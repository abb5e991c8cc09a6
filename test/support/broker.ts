/** Starts, stops and kills real broker processes, each on free ports and a data folder of its own. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { freePorts } from './ports.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
/** The script that is started; BROKER_TEST_LAUNCHER names another one, such as that of an installed package. */
export const LAUNCHER = process.env.BROKER_TEST_LAUNCHER ?? join(ROOT, 'bin', 'broker.mjs');

export interface BrokerOptions {
  /** Added to `serve`. */
  readonly flags?: readonly string[];
  /** Added to the environment; `BROKER_*` variables of the caller are not passed on. */
  readonly env?: Readonly<Record<string, string>>;
  /** Kept when the broker is disposed of; without it a temporary folder is made and removed. */
  readonly dataDir?: string;
  /** Flags for Node itself, in front of the script. */
  readonly nodeFlags?: readonly string[];
  /** A program and its arguments that turns into the broker, such as `strace -D`: the pid must be the broker's own. */
  readonly under?: readonly string[];
  /** How long to wait for `/readyz`, in ms. */
  readonly readyTimeoutMs?: number;
  /** The first lines that are kept of what it writes; the newest are always kept. */
  readonly logLinesMax?: number;
  /** HOST:PORT of gRPC and of the admin HTTP server; without them free ports of 127.0.0.1. */
  readonly addresses?: { readonly grpc: string; readonly admin: string };
}

export interface RestartOptions {
  readonly flags?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  readonly under?: readonly string[];
}

export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** The process ended before it was ready. */
export class BrokerStartError extends Error {
  override name = 'BrokerStartError';
  readonly exit: Exit | null;

  constructor(message: string, exit: Exit | null) {
    super(message);
    this.exit = exit;
  }
}

/** Where data folders are made: a real disk, since /tmp may be memory, on which fdatasync costs nothing. */
export function makeDataDirectory(prefix = 'broker-'): string {
  const parent = process.env.BROKER_TEST_DIR ?? (existsSync('/var/tmp') ? '/var/tmp' : process.env.TMPDIR || '/tmp');
  return mkdtempSync(join(parent, prefix));
}

export class BrokerProcess {
  readonly dataDir: string;
  /** HOST:PORT of gRPC; stays the same over restarts. */
  readonly address: string;
  /** HOST:PORT of the admin HTTP server. */
  readonly adminAddress: string;
  readonly #options: BrokerOptions;
  readonly #ownsDataDir: boolean;
  #child: ChildProcess | null = null;
  #exited: Promise<Exit> = Promise.resolve({ code: 0, signal: null });
  #lines: string[] = [];

  private constructor(options: BrokerOptions, addresses: { readonly grpc: string; readonly admin: string }) {
    this.#options = options;
    this.#ownsDataDir = options.dataDir === undefined;
    this.dataDir = options.dataDir ?? makeDataDirectory();
    this.address = addresses.grpc;
    this.adminAddress = addresses.admin;
  }

  /** A broker that is not running yet: `restart` starts it. */
  static async create(options: BrokerOptions = {}): Promise<BrokerProcess> {
    if (options.addresses !== undefined) return new BrokerProcess(options, options.addresses);
    const [grpc, admin] = await freePorts(2);
    return new BrokerProcess(options, { grpc: `127.0.0.1:${grpc}`, admin: `127.0.0.1:${admin}` });
  }

  get pid(): number {
    const pid = this.#child?.pid;
    if (pid === undefined) throw new Error('the broker is not running');
    return pid;
  }

  get running(): boolean {
    return this.#child !== null;
  }

  /** Resolves when the present process has ended. */
  get exited(): Promise<Exit> {
    return this.#exited;
  }

  /** What it wrote to stdout and stderr, the newest lines. */
  get logs(): string {
    return this.#lines.join('\n');
  }

  /** Starts the process without waiting for it to be ready. */
  launch(options: RestartOptions = {}): void {
    if (this.#child !== null) throw new Error('the broker is running already');
    const flags = options.flags ?? this.#options.flags ?? [];
    const env = { ...cleanEnvironment(), ...this.#options.env, ...options.env };
    const [program, ...args] = [
      ...(options.under ?? this.#options.under ?? []),
      process.execPath,
      ...(this.#options.nodeFlags ?? []),
      LAUNCHER,
      'serve',
      ...['--data-dir', this.dataDir, '--grpc-listen', this.address, '--admin-listen', this.adminAddress],
      ...flags,
    ];
    const child = spawn(
      program as string,
      args,
      // The channel tells the broker when this process is gone, however it went: then it stops by itself (bin/node24.mjs).
      { cwd: ROOT, env, stdio: ['ignore', 'pipe', 'pipe', 'ipc'] },
    );
    this.#child = child;
    this.#exited = once(child, 'close').then(([code, signal]) => {
      if (this.#child === child) this.#child = null;
      return { code, signal };
    });
    for (const stream of [child.stdout, child.stderr]) {
      if (stream !== null) this.#keepLines(stream);
    }
  }

  #keepLines(stream: NodeJS.ReadableStream): void {
    let rest = '';
    stream.setEncoding('utf8');
    stream.on('data', (text: string) => {
      const lines = (rest + text).split('\n');
      rest = lines.pop() ?? '';
      this.#lines.push(...lines);
      const most = this.#options.logLinesMax ?? 400;
      if (this.#lines.length > most) this.#lines = this.#lines.slice(-most);
    });
    stream.on('end', () => rest !== '' && this.#lines.push(rest));
  }

  /** Resolves when `/readyz` answers 200; returns how long that took from the call, in ms. Rejects with BrokerStartError. */
  async ready(): Promise<number> {
    const begun = performance.now();
    const timeoutMs = this.#options.readyTimeoutMs ?? 120_000;
    const watch: { exit: Exit | null } = { exit: null };
    void this.#exited.then((exit) => {
      watch.exit = exit;
    });
    while (performance.now() - begun < timeoutMs) {
      if (watch.exit !== null) {
        const { code, signal } = watch.exit;
        throw new BrokerStartError(
          `the broker ended (${signal ?? code}) before it was ready\n${this.logs}`,
          watch.exit,
        );
      }
      if ((await httpStatus(this.adminAddress, '/readyz')) === 200) return performance.now() - begun;
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    throw new BrokerStartError(`the broker was not ready within ${timeoutMs} ms\n${this.logs}`, null);
  }

  /** Ends what runs (kill -9), starts again on the same folder and ports; returns the ms until ready. */
  async restart(options: RestartOptions = {}): Promise<number> {
    await this.kill();
    const begun = performance.now();
    this.launch(options);
    await this.ready();
    return performance.now() - begun;
  }

  /** SIGTERM, and the end that follows; kill -9 and an error after `timeoutMs`. */
  async stop(timeoutMs = 30_000): Promise<Exit> {
    const child = this.#child;
    if (child === null) return this.#exited;
    child.kill('SIGTERM');
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<null>((resolve) => {
      timer = setTimeout(resolve, timeoutMs, null);
    });
    const exit = await Promise.race([this.#exited, late]);
    clearTimeout(timer);
    if (exit !== null) return exit;
    await this.kill();
    throw new Error(`the broker did not stop within ${timeoutMs} ms of SIGTERM\n${this.logs}`);
  }

  /** kill -9. */
  async kill(): Promise<void> {
    this.#child?.kill('SIGKILL');
    await this.#exited;
  }

  /** kill -9 and remove the folder, unless it was given. */
  async dispose(): Promise<void> {
    await this.kill();
    if (this.#ownsDataDir) rmSync(this.dataDir, { recursive: true, force: true });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.dispose();
  }
}

/** A broker that is ready. */
export async function startBroker(options: BrokerOptions = {}): Promise<BrokerProcess> {
  const broker = await BrokerProcess.create(options);
  try {
    await broker.restart();
  } catch (error) {
    await broker.dispose();
    throw error;
  }
  return broker;
}

/** The launcher sets UV_THREADPOOL_SIZE and then replaces itself; with it set already there is one process from the start. */
function cleanEnvironment(): Record<string, string> {
  const kept: Record<string, string> = { UV_THREADPOOL_SIZE: '8' };
  for (const [name, value] of Object.entries(process.env)) {
    if (value !== undefined && !name.startsWith('BROKER_') && name !== 'NODE_OPTIONS' && name !== 'NODE_TEST_CONTEXT') {
      kept[name] = value;
    }
  }
  return kept;
}

/** Status of a GET; 0 when nobody answers. */
export function httpStatus(address: string, path: string, timeoutMs = 2_000): Promise<number> {
  return new Promise((resolve) => {
    const call = request(`http://${address}${path}`, { timeout: timeoutMs, agent: false }, (response) => {
      response.resume();
      resolve(response.statusCode ?? 0);
    });
    call.on('timeout', () => call.destroy());
    call.on('error', () => resolve(0));
    call.end();
  });
}
