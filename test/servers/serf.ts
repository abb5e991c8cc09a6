/** Real Serf agents: the newest, built once by Go into .cache, and Debian's where it is installed. Their version numbers are the packages', not what they call themselves. */
import { type ChildProcess, execFile, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { delimiter, join } from 'node:path';
import { killChild } from '../support/kill-child.ts';
import { freePorts } from '../support/ports.ts';
import { ROOT } from '../support/source-tree.ts';
import { until } from '../support/until.ts';

const NEWEST = 'v0.11.0';
const CALL_MS = 20_000;

export interface SerfProgram {
  readonly version: string;
  readonly path: string;
}

/** Builds it if it is not there yet. Go is asked for by requireTool; rejects with what Go says. */
export async function newestSerf(): Promise<SerfProgram> {
  const folder = join(ROOT, '.cache', 'serf', NEWEST);
  const path = join(folder, 'serf');
  if (existsSync(path)) return { version: NEWEST, path };
  mkdirSync(folder, { recursive: true });
  const unfinished = mkdtempSync(join(folder, 'build-'));
  const env = { ...process.env, GOBIN: unfinished, GOFLAGS: '', GOWORK: 'off' };
  const child = spawn('go', ['install', `github.com/hashicorp/serf/cmd/serf@${NEWEST}`], {
    env,
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let said = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    said += text;
  });
  const [code] = (await once(child, 'close')) as [number | null];
  if (code !== 0) throw new Error(`serf ${NEWEST} cannot be built: ${said}`);
  renameSync(join(unfinished, 'serf'), path);
  rmSync(unfinished, { recursive: true });
  return { version: NEWEST, path };
}

/** Null where none is installed. */
export function installedSerf(): SerfProgram | null {
  const folder = (process.env.PATH ?? '').split(delimiter).find((name) => existsSync(join(name, 'serf')));
  if (folder === undefined) return null;
  const path = join(folder, 'serf');
  const { stdout } = spawnSync(path, ['version'], { encoding: 'utf8' });
  return { version: `installed (calls itself ${stdout.split('\n')[0]})`, path };
}

/** As `serf members -format=json` tells. */
export interface SerfMember {
  readonly name: string;
  /** HOST:PORT */
  readonly addr: string;
  readonly status: 'alive' | 'leaving' | 'left' | 'failed' | 'none';
  readonly tags: Readonly<Record<string, string>>;
}

export interface SerfAgentOptions {
  readonly node: string;
  /** HOST:PORT; a free port of 127.0.0.1 without it. */
  readonly bind?: string;
  /** Base64; the first is primary. Written to a keyring file, which the agent keeps up to date. */
  readonly keys?: readonly string[];
  readonly tags?: Readonly<Record<string, string>>;
  readonly profile?: 'local' | 'lan' | 'wan';
  /** HOST:PORT of agents that may come later. */
  readonly join?: readonly string[];
  /** What a query is answered with, by its name. */
  readonly answers?: Readonly<Record<string, string>>;
  /** A program and its arguments that turns into the agent. */
  readonly under?: readonly string[];
}

export interface SerfEvent {
  readonly name: string;
  readonly payload: string;
}

export class SerfAgent implements AsyncDisposable {
  /** HOST:PORT of its gossip port. */
  readonly address: string;
  readonly node: string;
  readonly #program: SerfProgram;
  readonly #rpc: string;
  readonly #folder: string;
  readonly #options: SerfAgentOptions;
  #child: ChildProcess | null = null;

  private constructor(program: SerfProgram, options: SerfAgentOptions, bind: string, rpc: string, folder: string) {
    this.#program = program;
    this.#options = options;
    this.node = options.node;
    this.address = bind;
    this.#rpc = rpc;
    this.#folder = folder;
  }

  /** Resolves when it answers calls. `folder`: where it may keep files, removed by the caller. */
  static async start(program: SerfProgram, folder: string, options: SerfAgentOptions): Promise<SerfAgent> {
    const [gossip, rpc] = await freePorts(2);
    const home = mkdtempSync(join(folder, `serf-${options.node}-`));
    const bind = options.bind ?? `127.0.0.1:${gossip}`;
    const host = bind.slice(0, bind.lastIndexOf(':'));
    const agent = new SerfAgent(program, options, bind, `${host}:${rpc}`, home);
    if (options.keys !== undefined) writeFileSync(agent.#keyring, JSON.stringify(options.keys), { mode: 0o600 });
    await agent.restart();
    return agent;
  }

  /** Base64 of a new key. */
  static keygen(): string {
    return Buffer.from(crypto.getRandomValues(new Uint8Array(32))).toString('base64');
  }

  /** kill -9 of what runs, and a new process with the same files and ports. */
  async restart(): Promise<void> {
    await this.kill();
    const { profile = 'local', tags = {}, keys, join: seeds = [], answers = {}, under = [] } = this.#options;
    const args = [
      ...under,
      this.#program.path,
      'agent',
      `-node=${this.node}`,
      `-bind=${this.address}`,
      `-rpc-addr=${this.#rpc}`,
      `-profile=${profile}`,
      '-log-level=debug',
      '-retry-interval=1s',
      `-event-handler=user=printf '%s %s\\n' "$SERF_USER_EVENT" "$(cat)" >> ${this.#events}`,
      ...Object.entries(tags).flatMap(([name, value]) => ['-tag', `${name}=${value}`]),
      ...(keys === undefined ? [] : [`-keyring-file=${this.#keyring}`]),
      ...seeds.map((seed) => `-retry-join=${seed}`),
      ...Object.entries(answers).map(([name, answer]) => `-event-handler=query:${name}=printf '%s' '${answer}'`),
    ];
    const child = spawn(args[0] as string, args.slice(1), { stdio: ['ignore', 'pipe', 'pipe'] });
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (text) => appendFileSync(this.#logFile, text));
    this.#child = child;
    const reap = (): void => void child.kill('SIGKILL');
    process.once('exit', reap);
    child.once('exit', () => process.off('exit', reap));
    await until(
      async () => child.exitCode !== null || (await this.#answers()),
      () => `serf ${this.node} does not answer\n${this.logs}`,
    );
    if (child.exitCode !== null) throw new Error(`serf ${this.node} ended with ${child.exitCode}\n${this.logs}`);
  }

  get logs(): string {
    return existsSync(this.#logFile) ? readFileSync(this.#logFile, 'utf8') : '';
  }

  /** User events that came, in their order. */
  get events(): SerfEvent[] {
    if (!existsSync(this.#events)) return [];
    const lines = readFileSync(this.#events, 'utf8').split('\n').slice(0, -1);
    return lines.map((line) => {
      const [name = '', ...payload] = line.split(' ');
      return { name, payload: payload.join(' ') };
    });
  }

  /** What its keyring file has, primary first. */
  get keys(): string[] {
    return JSON.parse(readFileSync(this.#keyring, 'utf8')) as string[];
  }

  async members(): Promise<SerfMember[]> {
    const { members } = JSON.parse(await this.call('members', '-format=json')) as { members: SerfMember[] };
    return members;
  }

  /** What a command of the program says. Rejects with what it complains about. */
  call(command: string, ...args: readonly string[]): Promise<string> {
    return new Promise((resolve, reject) => {
      const words = [command, `-rpc-addr=${this.#rpc}`, ...args];
      execFile(this.#program.path, words, { timeout: CALL_MS }, (error, out, said) => {
        if (error === null) resolve(out);
        else reject(new Error(`serf ${words.join(' ')}: ${said}${out}`, { cause: error }));
      });
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

  get #keyring(): string {
    return join(this.#folder, 'keyring.json');
  }

  get #events(): string {
    return join(this.#folder, 'events');
  }

  get #logFile(): string {
    return join(this.#folder, 'log');
  }

  async #answers(): Promise<boolean> {
    try {
      await this.call('info');
      return true;
    } catch {
      // It does not listen yet.
      return false;
    }
  }
}
