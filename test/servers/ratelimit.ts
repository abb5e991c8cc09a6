/**
 * A rate-limit service for Envoy that reads the rules of envoy/ratelimit/ as github.com/envoyproxy/ratelimit does, and counts in memory. That one takes
 * a minute to build and needs Redis: `npm run check:envoy` runs the same tests on it (BROKER_TEST_RATELIMIT names its program).
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import {
  type GrpcObject,
  loadPackageDefinition,
  Server,
  ServerCredentials,
  type ServerUnaryCall,
  type ServiceClientConstructor,
  type sendUnaryData,
} from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { stringify } from 'yaml';
import { killChild } from '../support/kill-child.ts';
import { freePorts } from '../support/ports.ts';
import { ROOT } from '../support/source-tree.ts';
import { until } from '../support/until.ts';

const UNITS = { second: 1, minute: 60, hour: 3_600, day: 86_400 } as const;

/** A line of a file of rules. */
export interface Rule {
  readonly key: string;
  /** None: for each value that no other line has, by itself. */
  readonly value?: string;
  readonly rate_limit?: { readonly unit: keyof typeof UNITS; readonly requests_per_unit: number };
  readonly descriptors?: readonly Rule[];
}

export interface Rules {
  readonly domain: string;
  readonly descriptors: readonly Rule[];
}

export interface RateLimitService {
  /** HOST:PORT */
  readonly address: string;
  stop(): Promise<void>;
}

interface Entry {
  readonly key: string;
  readonly value: string;
}

interface Request {
  readonly domain: string;
  readonly descriptors: readonly { readonly entries: readonly Entry[] }[];
  readonly hits_addend: number;
}

interface Status {
  readonly code: 'OK' | 'OVER_LIMIT';
  readonly current_limit?: object;
  readonly limit_remaining?: number;
  readonly duration_until_reset?: object;
}

/** The real one where BROKER_TEST_RATELIMIT names it, else ours. `folder`: for its files, removed by the caller. */
export async function startRateLimit(rules: Rules, folder: string): Promise<RateLimitService> {
  const program = process.env.BROKER_TEST_RATELIMIT;
  return program === undefined ? await startOwn(rules) : await RealRateLimit.start(program, rules, folder);
}

/** The line that a descriptor ends at; undefined: it has no limit. One with the value goes before one without, and there is no way back from it. */
export function ruleOf(rules: readonly Rule[] | undefined, entries: readonly Entry[]): Rule | undefined {
  const [first, ...rest] = entries;
  const own = rules?.find(({ key, value }) => key === first?.key && value === first.value);
  const rule = own ?? rules?.find(({ key, value }) => key === first?.key && value === undefined);
  return rest.length === 0 ? rule : ruleOf(rule?.descriptors, rest);
}

async function startOwn(rules: Rules): Promise<RateLimitService> {
  const definition = loadSync(join(ROOT, 'test/servers/ratelimit.proto'), { keepCase: true, longs: Number });
  const { envoy } = loadPackageDefinition(definition) as unknown as { envoy: GrpcObject };
  const { RateLimitService: service } = (envoy.service as GrpcObject & { ratelimit: { v3: object } }).ratelimit
    .v3 as unknown as { RateLimitService: ServiceClientConstructor };
  /** By descriptor: the window it was counted in, and how many. */
  const counts = new Map<string, { window: number; hits: number }>();
  const statusOf = (entries: readonly Entry[], hits: number, nowMs: number): Status => {
    const limit = ruleOf(rules.descriptors, entries)?.rate_limit;
    if (limit === undefined) return { code: 'OK' };
    const seconds = UNITS[limit.unit];
    const window = Math.floor(nowMs / 1_000 / seconds);
    const key = JSON.stringify(entries);
    const last = counts.get(key);
    const count = last?.window === window ? last : { window, hits: 0 };
    count.hits += hits;
    counts.set(key, count);
    return {
      code: count.hits > limit.requests_per_unit ? 'OVER_LIMIT' : 'OK',
      current_limit: { requests_per_unit: limit.requests_per_unit, unit: limit.unit.toUpperCase() },
      limit_remaining: Math.max(0, limit.requests_per_unit - count.hits),
      duration_until_reset: { seconds: Math.ceil((window + 1) * seconds - nowMs / 1_000), nanos: 0 },
    };
  };
  const server = new Server();
  server.addService(service.service, {
    ShouldRateLimit: ({ request }: ServerUnaryCall<Request, object>, done: sendUnaryData<object>) => {
      const nowMs = Date.now();
      const known = request.domain === rules.domain ? request.descriptors : [];
      const statuses = known.map(({ entries }) => statusOf(entries, request.hits_addend || 1, nowMs));
      const isOver = statuses.some(({ code }) => code === 'OVER_LIMIT');
      done(null, { overall_code: isOver ? 'OVER_LIMIT' : 'OK', statuses });
    },
  });
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
      error === null ? resolve(bound) : reject(error),
    );
  });
  return { address: `127.0.0.1:${port}`, stop: async () => server.forceShutdown() };
}

class RealRateLimit implements RateLimitService {
  readonly address: string;
  readonly #children: ChildProcess[] = [];

  private constructor(address: string) {
    this.address = address;
  }

  static async start(program: string, rules: Rules, folder: string): Promise<RealRateLimit> {
    const [redisPort, port, httpPort, debugPort, metricsPort] = (await freePorts(5)) as [
      number,
      number,
      number,
      number,
      number,
    ];
    mkdirSync(join(folder, 'ratelimit', 'config'), { recursive: true });
    writeFileSync(join(folder, 'ratelimit', 'config', 'rules.yaml'), stringify(rules));
    const redis = ['--port', String(redisPort), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no'];
    const env = {
      PATH: process.env.PATH,
      LOG_LEVEL: 'warn',
      USE_STATSD: 'false',
      USE_PROMETHEUS: 'true',
      PROMETHEUS_ADDR: `127.0.0.1:${metricsPort}`,
      HOST: '127.0.0.1',
      PORT: String(httpPort),
      GRPC_HOST: '127.0.0.1',
      GRPC_PORT: String(port),
      DEBUG_HOST: '127.0.0.1',
      DEBUG_PORT: String(debugPort),
      REDIS_SOCKET_TYPE: 'tcp',
      REDIS_URL: `127.0.0.1:${redisPort}`,
      RUNTIME_ROOT: folder,
      RUNTIME_SUBDIRECTORY: 'ratelimit',
      RUNTIME_WATCH_ROOT: 'false',
    };
    const service = new RealRateLimit(`127.0.0.1:${port}`);
    const adopt = (child: ChildProcess): void => {
      const reap = (): void => void child.kill('SIGKILL');
      process.once('exit', reap);
      child.once('exit', () => process.off('exit', reap));
      service.#children.push(child);
    };
    // The service gives up at once if there is no Redis.
    adopt(spawn('redis-server', redis, { stdio: 'ignore', cwd: folder }));
    const isReady = async (): Promise<boolean> => {
      try {
        return (await fetch(`http://127.0.0.1:${httpPort}/healthcheck`)).ok;
      } catch {
        // It does not listen yet.
        return false;
      }
    };
    try {
      await until(
        () => accepts(redisPort),
        () => 'Redis does not start',
      );
      adopt(spawn(program, [], { stdio: ['ignore', 'ignore', 'inherit'], env }));
      await until(isReady, () => 'the rate-limit service does not start');
    } catch (error) {
      await service.stop();
      throw error;
    }
    return service;
  }

  async stop(): Promise<void> {
    for (const child of this.#children) await killChild(child);
  }
}

function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}
