/** A real control plane without machines: etcd, API server, controller manager, scheduler, and kwok, which plays nodes and some of the pods. */
import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { Agent, request } from 'node:https';
import { join } from 'node:path';
import { pause } from '../support/until.ts';
import { type Ended, run, runOrFail } from './go-tools.ts';

export interface ControlPlaneOptions {
  /** Of the programs. */
  readonly binaries: string;
  /** For state and logs. */
  readonly folder: string;
  /** Where pods reach the API server. */
  readonly host: string;
  /** Stages of kwok, as YAML. */
  readonly stages: string;
}

export interface Answer {
  readonly status: number;
  readonly body: unknown;
}

const API_PORT = 6443;
const ETCD = 'http://127.0.0.1:2379';
const START_TIMEOUT_MS = 120_000;
const STOP_TIMEOUT_MS = 3_000;
const LOOK_MS = 100;

export class ControlPlane {
  readonly host: string;
  readonly port = API_PORT;
  readonly #options: ControlPlaneOptions;
  readonly #children: ChildProcess[] = [];
  readonly #token = randomBytes(16).toString('hex');
  readonly #agent: Agent;

  private constructor(options: ControlPlaneOptions) {
    this.#options = options;
    this.host = options.host;
    this.#agent = new Agent({ keepAlive: true, maxSockets: 16 });
  }

  static async start(options: ControlPlaneOptions): Promise<ControlPlane> {
    const plane = new ControlPlane(options);
    try {
      await plane.#start();
    } catch (error) {
      await plane.stop();
      throw error;
    }
    return plane;
  }

  /** Of the API server; made by itself. */
  get certificate(): string {
    return readFileSync(this.#path('pki', 'apiserver.crt'), 'utf8');
  }

  async #start(): Promise<void> {
    const { host } = this;
    mkdirSync(this.#options.folder, { recursive: true });
    await runOrFail('openssl', ['genrsa', '-out', this.#path('account.key'), '2048']);
    writeFileSync(this.#path('tokens.csv'), `${this.#token},admin,admin,system:masters\n`, { mode: 0o600 });
    this.#spawn('etcd', [
      ...['--data-dir', this.#path('etcd'), '--listen-client-urls', ETCD, '--advertise-client-urls', ETCD],
      ...['--listen-peer-urls', 'http://127.0.0.1:0', '--unsafe-no-fsync'],
    ]);
    this.#spawn('kube-apiserver', [
      ...[
        `--etcd-servers=${ETCD}`,
        '--bind-address=0.0.0.0',
        `--advertise-address=${host}`,
        `--secure-port=${API_PORT}`,
      ],
      ...[`--cert-dir=${this.#path('pki')}`, '--service-cluster-ip-range=10.0.0.0/24', '--authorization-mode=RBAC'],
      ...['--service-account-issuer=https://kubernetes.default.svc', '--endpoint-reconciler-type=none'],
      `--service-account-key-file=${this.#path('account.key')}`,
      `--service-account-signing-key-file=${this.#path('account.key')}`,
      `--token-auth-file=${this.#path('tokens.csv')}`,
    ]);
    await this.#untilReady();
    writeFileSync(this.#path('kubeconfig'), this.#kubeconfig(), { mode: 0o600 });
    const client = [`--kubeconfig=${this.#path('kubeconfig')}`];
    this.#spawn('kube-controller-manager', [
      ...[...client, '--bind-address=127.0.0.1', '--secure-port=0', '--leader-elect=false'],
      `--service-account-private-key-file=${this.#path('account.key')}`,
      // Heartbeats may be late where one machine plays all.
      '--node-monitor-grace-period=10m',
      `--root-ca-file=${this.#path('pki', 'apiserver.crt')}`,
    ]);
    this.#spawn('kube-scheduler', [...client, '--leader-elect=false', '--secure-port=0']);
    writeFileSync(this.#path('stages.yaml'), this.#options.stages);
    this.#spawn('kwok', [
      ...[...client, '--config', this.#path('stages.yaml'), '--manage-all-nodes=true'],
      ...['--cidr=10.245.0.0/16', '--node-ip=127.0.0.1'],
    ]);
  }

  #path(...parts: readonly string[]): string {
    return join(this.#options.folder, ...parts);
  }

  #spawn(program: string, args: readonly string[]): void {
    const log = openSync(this.#path(`${program}.log`), 'a');
    const child = spawn(join(this.#options.binaries, program), args, { stdio: ['ignore', log, log] });
    this.#children.push(child);
    child.on('error', (error) => process.stderr.write(`${program}: ${error.message}\n`));
  }

  #kubeconfig(): string {
    const cluster = {
      server: `https://${this.host}:${API_PORT}`,
      'certificate-authority': this.#path('pki', 'apiserver.crt'),
    };
    return JSON.stringify({
      apiVersion: 'v1',
      kind: 'Config',
      clusters: [{ name: 'check', cluster }],
      users: [{ name: 'admin', user: { token: this.#token } }],
      contexts: [{ name: 'check', context: { cluster: 'check', user: 'admin' } }],
      'current-context': 'check',
    });
  }

  async #untilReady(): Promise<void> {
    for (const began = performance.now(); performance.now() - began < START_TIMEOUT_MS; ) {
      const ended = this.#children.find(({ exitCode }) => exitCode !== null);
      if (ended !== undefined)
        throw new Error(`${ended.spawnfile} ended with ${ended.exitCode}: ${this.log('kube-apiserver')}`);
      const answer = await this.call('GET', '/readyz').catch(() => null);
      if (answer?.status === 200) return;
      await pause(LOOK_MS);
    }
    throw new Error(`the API server is not ready: ${this.log('kube-apiserver')}`);
  }

  /** The end of what a program has written. */
  log(program: string): string {
    return readFileSync(this.#path(`${program}.log`), 'utf8').slice(-2_000);
  }

  /** One request, as the administrator or with the token of somebody else. Rejects if there is no answer. */
  call(method: string, path: string, body?: unknown, token = this.#token): Promise<Answer> {
    const text = body === undefined ? '' : JSON.stringify(body);
    const type = method === 'PATCH' ? 'application/merge-patch+json' : 'application/json';
    const headers = {
      authorization: `Bearer ${token}`,
      'content-type': type,
      'content-length': Buffer.byteLength(text),
    };
    // Its certificate is made while it starts.
    const trust = { rejectUnauthorized: false, agent: this.#agent };
    return new Promise((resolve, reject) => {
      const sent = request(
        { host: this.host, port: API_PORT, method, path, headers, ...trust, timeout: 30_000 },
        (response) => {
          const chunks: Buffer[] = [];
          response.on('data', (chunk: Buffer) => chunks.push(chunk));
          response.on('end', () => resolve({ status: response.statusCode ?? 0, body: parsed(Buffer.concat(chunks)) }));
          response.on('error', reject);
        },
      );
      sent.on('timeout', () => sent.destroy(new Error(`${method} ${path}: no answer`)));
      sent.on('error', reject);
      sent.end(text);
    });
  }

  /** Ends with anything; `input` is given to it. */
  tryKubectl(...args: readonly string[]): Promise<Ended> {
    return run(join(this.#options.binaries, 'kubectl'), [`--kubeconfig=${this.#path('kubeconfig')}`, ...args], {
      env: { ...process.env, HOME: this.#options.folder },
    });
  }

  /** Rejects if it ends with anything but 0. */
  async kubectl(...args: readonly string[]): Promise<string> {
    const { code, out, said } = await this.tryKubectl(...args);
    if (code !== 0) throw new Error(`kubectl ${args.join(' ')}: ${said}${out}`);
    return out;
  }

  /** In the opposite order; each by its pid, and with SIGKILL if it does not heed SIGTERM. */
  async stop(): Promise<void> {
    this.#agent.destroy();
    for (const child of this.#children.reverse()) await stopProcess(child, STOP_TIMEOUT_MS);
    this.#children.length = 0;
  }
}

function parsed(body: Buffer): unknown {
  const text = body.toString('utf8');
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return text;
  }
}

/** SIGTERM, then SIGKILL. */
export async function stopProcess(child: ChildProcess, timeoutMs: number): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return;
  const ended = once(child, 'exit');
  child.kill('SIGTERM');
  const timer = setTimeout(() => child.kill('SIGKILL'), timeoutMs);
  await ended;
  clearTimeout(timer);
}
