/**
 * A container engine of the test's own: dockerd in a process namespace and a mount namespace that end with it. However the test ends,
 * a kill -9 included, no container, mount or process of it is left. It makes no bridge and touches no rule of the host's network: containers
 * share the network of the host, of each other, or have none.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, existsSync, mkdirSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { until } from '../support/until.ts';

export interface Ended {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

export interface RunOptions {
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  readonly input?: Readable;
}

/** The client of the engine's own package: a newer one in front of it may want plug-ins that are not there. */
const CLIENT = existsSync('/usr/bin/docker') ? '/usr/bin/docker' : 'docker';
const START_MS = 60_000;

/** Runs a program to its end. */
export async function run(program: string, argv: readonly string[], options: RunOptions = {}): Promise<Ended> {
  const env = { ...process.env, ...options.env };
  const stdin = options.input === undefined ? 'ignore' : 'pipe';
  const child = spawn(program, argv, { env, cwd: options.cwd, stdio: [stdin, 'pipe', 'pipe'] });
  if (child.stdin !== null) options.input?.pipe(child.stdin);
  const [out, err] = [[] as string[], [] as string[]];
  child.stdout?.setEncoding('utf8').on('data', (text: string) => out.push(text));
  child.stderr?.setEncoding('utf8').on('data', (text: string) => err.push(text));
  const [code] = await once(child, 'close');
  return { code, out: out.join(''), err: err.join('') };
}

/** What it printed; an error with what it complained of unless it ended with 0. */
export async function succeed(program: string, argv: readonly string[], options: RunOptions = {}): Promise<string> {
  const { code, out, err } = await run(program, argv, options);
  assert.equal(code, 0, `${program} ${argv.join(' ')}\n${(err + out).slice(-8_000)}`);
  return out;
}

export class Engine {
  /** As DOCKER_HOST takes it. */
  readonly host: string;
  readonly #process: ChildProcess;
  readonly #exited: Promise<unknown>;

  private constructor(child: ChildProcess, host: string) {
    this.#process = child;
    this.#exited = once(child, 'exit');
    this.host = host;
  }

  /** Keeps all it has below `folder`. */
  static async start(folder: string): Promise<Engine> {
    const host = `unix://${join(folder, 'engine.sock')}`;
    const log = join(folder, 'engine.log');
    mkdirSync(join(folder, 'exec'));
    // In memory, and for the engine alone: tens of thousands of small files are made, and are gone with it.
    mkdirSync(join(folder, 'data'));
    const flags = ['--data-root', join(folder, 'data'), '--exec-root', join(folder, 'exec')];
    const network = ['--bridge=none', '--iptables=false', '--ip6tables=false', '--ip-forward=false', '--ip-masq=false'];
    const output = openSync(log, 'a');
    const child = spawn(
      // Ends when we do, in whatever way.
      'setpriv',
      [
        ...['--pdeathsig', 'KILL', 'unshare'],
        ...['--mount', '--pid', '--fork', '--kill-child=SIGKILL', '--mount-proc', '--'],
        ...['sh', '-c', 'mount -t tmpfs -o size=6g,mode=711 engine "$0" && exec "$@"', join(folder, 'data')],
        ...['dockerd', '-H', host, '-p', join(folder, 'engine.pid'), ...flags, ...network],
      ],
      { stdio: ['ignore', output, output], env: { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` } },
    );
    closeSync(output);
    const engine = new Engine(child, host);
    const tail = (): string => readFileSync(log, 'utf8').slice(-3_000);
    await until(
      async () => {
        assert.equal(child.exitCode, null, `the engine ended:\n${tail()}`);
        return (await engine.run(['version'])).code === 0;
      },
      () => `the engine does not answer:\n${tail()}`,
      START_MS,
    );
    return engine;
  }

  run(argv: readonly string[], options: RunOptions = {}): Promise<Ended> {
    return run(CLIENT, ['-H', this.host, ...argv], options);
  }

  /** What the command printed, without the last line break. */
  async ask(argv: readonly string[], options: RunOptions = {}): Promise<string> {
    return (await succeed(CLIENT, ['-H', this.host, ...argv], options)).trimEnd();
  }

  /** `docker inspect` of one thing. */
  async inspect(what: string): Promise<Record<string, unknown>> {
    const [found] = JSON.parse(await this.ask(['inspect', what])) as Record<string, unknown>[];
    assert.ok(found !== undefined);
    return found;
  }

  /** Ends it and everything that it runs, at once. */
  async stop(): Promise<void> {
    this.#process.kill('SIGKILL');
    await this.#exited;
  }
}
