/** What the tests of Envoy share: an Envoy before brokers, and calls that show everything that came back. */
import type { TestContext } from 'node:test';
import * as grpc from '@grpc/grpc-js';
import { type EnvoyOptions, EnvoyProcess, httpFilter, type Node, requireEnvoy } from '../servers/envoy.ts';
import { temporaryFolder } from '../support/temporary.ts';
import { decodeNumber, encodePublish } from '../support/wire.ts';

const raw = (bytes: Buffer): Buffer => bytes;

type Options = Omit<EnvoyOptions, 'folder'>;

/** Null: there is no Envoy here, and the test is marked as skipped. It knows the broker, or all of them, as healthy. */
export async function startEnvoy(t: TestContext, options: Options): Promise<EnvoyProcess | null> {
  const envoy = await startEnvoyAlone(t, options);
  await envoy?.waitForHealthy(options.brokers.length);
  return envoy;
}

/** The same, whatever it knows of the brokers. */
export async function startEnvoyAlone(t: TestContext, options: Options): Promise<EnvoyProcess | null> {
  const program = requireEnvoy(t);
  if (program === null) return null;
  const envoy = await EnvoyProcess.start(program, { ...options, folder: temporaryFolder(t) });
  t.after(() => envoy[Symbol.asyncDispose]());
  return envoy;
}

/** So many at once, and the next one never: what is counted does not depend on how fast the machine is. */
export function tokens(count: number): Node {
  return { max_tokens: count, tokens_per_fill: count, fill_interval: '86400s' };
}

/** Every bucket of the filter is as large as can be, but for those that are named. */
export function setMethodBuckets(config: Node, buckets: Readonly<Record<string, Node>>): void {
  const filter = httpFilter(config, 'limit.method');
  filter.token_bucket = { max_tokens: 1_000_000, tokens_per_fill: 1_000_000, fill_interval: '1s' };
  filter.descriptors = Object.entries(buckets).map(([value, token_bucket]) => ({
    entries: [{ key: 'method', value }],
    token_bucket,
  }));
}

export interface Answer {
  readonly code: number;
  readonly details: string;
  /** Of a publish that was stored. */
  readonly id: number | null;
  /** Headers and trailers; of several with one name all. */
  readonly headers: Readonly<Record<string, string>>;
}

/** One connection. */
export class Caller {
  readonly #client: grpc.Client;

  constructor(t: Pick<TestContext, 'after'>, address: string) {
    this.#client = new grpc.Client(address, grpc.credentials.createInsecure(), {
      'grpc.use_local_subchannel_pool': 1,
      'grpc.enable_http_proxy': 0,
      'grpc.enable_retries': 0,
      'grpc.initial_reconnect_backoff_ms': 20,
      'grpc.max_reconnect_backoff_ms': 100,
    });
    t.after(() => this.#client.close());
  }

  publish(subject: string, metadata: Readonly<Record<string, string>> = {}, timeoutMs = 20_000): Promise<Answer> {
    return this.call('/broker.Broker/Publish', encodePublish({ subject, body: Buffer.from('m') }), metadata, timeoutMs);
  }

  call(
    path: string,
    request: Buffer,
    metadata: Readonly<Record<string, string>> = {},
    timeoutMs = 20_000,
  ): Promise<Answer> {
    const sent = new grpc.Metadata();
    for (const [name, value] of Object.entries(metadata)) sent.set(name, value);
    const headers: Record<string, string> = {};
    const keep = (said: grpc.Metadata | undefined): void => {
      for (const name of Object.keys(said?.getMap() ?? {})) headers[name] = said?.get(name).map(String).join('|') ?? '';
    };
    return new Promise((resolve) => {
      const options = { deadline: Date.now() + timeoutMs };
      let answer: Answer = { code: -1, details: '', id: null, headers };
      const call = this.#client.makeUnaryRequest(path, raw, raw, request, sent, options, (error, response) => {
        answer =
          error === null
            ? { ...answer, code: 0, id: decodeNumber(response as Buffer) }
            : { ...answer, code: error.code, details: error.details };
        keep(error?.metadata);
        resolve(answer);
      });
      call.on('metadata', keep);
    });
  }
}
