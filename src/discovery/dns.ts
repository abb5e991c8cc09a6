/** Seeds by DNS: the addresses behind one name, asked for again and again. */

import { promises as dns, type SrvRecord } from 'node:dns';
import { readFile } from 'node:fs/promises';
import { isIP } from 'node:net';
import { type Endpoint, formatEndpoint } from '../base/endpoint.ts';
import { Findings } from './findings.ts';
import { nameCandidates, parseSearchRules, type SearchRules } from './name-candidates.ts';
import type { Discovery, DiscoveryEvents } from './types.ts';

/** One question to one server, the first time; then twice that. */
const QUESTION_TIMEOUT_MS = 2_000;
const QUESTION_TRIES = 2;
/** A round that has no answer by then is given up. */
const ROUND_TIMEOUT_MS = 15_000;
/** Targets of SRV records that are looked up, those of the lowest priority number first, and how many at a time. */
const TARGETS_MAX = 256;
const TARGETS_AT_A_TIME = 8;
/** Rounds are this part of the interval sooner or later, so that nodes started together do not ask together. */
const JITTER = 0.2;
const SRV_PREFIX = '_gossip._tcp.';
const NAME_LENGTH_MAX = 253;

/** There is such a server, and it knows of no such addresses: an answer (codes of node:dns). */
const NOTHING = new Set(['ENOTFOUND', 'ENODATA']);
/** The server answered, but not this question: another one may do. */
const UNANSWERED = new Set(['ESERVFAIL', 'ENOTIMP', 'EREFUSED', 'EFORMERR', 'EBADNAME']);

export interface DnsOptions {
  /** The name to ask for, and the port of addresses that come without one. */
  readonly name: Endpoint;
  readonly intervalMs: number;
  /** Null: those of the machine. */
  readonly servers: readonly Endpoint[] | null;
  /** File that says where short names are looked up; null: names are taken as they are. */
  readonly resolvConf: string | null;
  /** Uniform in [0, 1). */
  readonly random: () => number;
  readonly questionTimeoutMs?: number;
  readonly graceMs?: number;
}

export class DnsDiscovery implements Discovery {
  readonly #options: DnsOptions;
  readonly #findings: Findings;
  #timer: NodeJS.Timeout | null = null;
  #round: Round | null = null;
  #isStopped = false;
  /** Which name had addresses last: that one is asked for first. */
  #foundBy: string | null = null;

  constructor(options: DnsOptions, events: DiscoveryEvents) {
    this.#options = options;
    this.#findings = new Findings(events, 'discovery dns', options.graceMs);
  }

  start(): void {
    void this.#ask();
  }

  stop(): void {
    this.#isStopped = true;
    this.#findings.close();
    this.#round?.cancel();
    if (this.#timer !== null) clearTimeout(this.#timer);
  }

  async #ask(): Promise<void> {
    const { name, servers, intervalMs, random } = this.#options;
    const names = nameCandidates(name.host, await this.#searchRules());
    if (this.#isStopped) return;
    const round = new Round(name.port, servers, this.#options.questionTimeoutMs);
    this.#round = round;
    const answer = await round.run(this.#inOrder(names));
    this.#round = null;
    if (this.#isStopped) return;
    if (answer.kind === 'failed') {
      this.#findings.problem(answer.reason);
    } else {
      this.#foundBy = answer.name ?? this.#foundBy;
      this.#findings.found(answer.addresses, `${name.host} has no addresses`);
    }
    this.#timer = setTimeout(() => void this.#ask(), jittered(intervalMs, random()));
  }

  #inOrder(names: readonly string[]): readonly string[] {
    const first = this.#foundBy;
    return first === null || !names.includes(first) ? names : [first, ...names.filter((name) => name !== first)];
  }

  /** Read anew each time, as the resolver does with the servers: a machine may change networks. */
  async #searchRules(): Promise<SearchRules> {
    const { resolvConf } = this.#options;
    return parseSearchRules(resolvConf === null ? '' : await readFile(resolvConf, 'utf8').catch(() => ''));
  }
}

/** `random` in [0, 1) spreads it evenly around itself. */
export function jittered(intervalMs: number, random: number): number {
  return Math.round(intervalMs * (1 - JITTER + 2 * JITTER * random));
}

type Answer =
  | { readonly kind: 'answered'; readonly name: string | null; readonly addresses: readonly Endpoint[] }
  | { readonly kind: 'failed'; readonly reason: string };

/** The questions of one round, with a resolver of their own: it reads the servers of the machine when it is made. */
class Round {
  readonly #resolver: dns.Resolver;
  readonly #port: number;
  #failure: string | null = null;
  /** Nobody answered at all, and each further name would wait as long. */
  #isSilent = false;
  #isOver = false;

  constructor(port: number, servers: readonly Endpoint[] | null, timeout = QUESTION_TIMEOUT_MS) {
    this.#port = port;
    this.#resolver = new dns.Resolver({ timeout, tries: QUESTION_TRIES });
    if (servers !== null) this.#resolver.setServers(servers.map(formatEndpoint));
  }

  cancel(): void {
    this.#isOver = true;
    this.#resolver.cancel();
  }

  async run(names: readonly string[]): Promise<Answer> {
    const deadline = setTimeout(() => {
      this.#failure = `no answer within ${ROUND_TIMEOUT_MS / 1_000} s`;
      this.cancel();
    }, ROUND_TIMEOUT_MS);
    try {
      for (const name of names) {
        const addresses = await this.#addressesOf(name);
        if (addresses.length > 0) return { kind: 'answered', name, addresses };
        if (this.#isOver || this.#isSilent) break;
      }
    } finally {
      clearTimeout(deadline);
    }
    return this.#failure === null
      ? { kind: 'answered', name: null, addresses: [] }
      : { kind: 'failed', reason: this.#failure };
  }

  async #addressesOf(name: string): Promise<readonly Endpoint[]> {
    const isService = name.startsWith('_');
    const service = isService ? name : `${SRV_PREFIX}${name}`;
    if (service.length <= NAME_LENGTH_MAX) {
      const targets = await this.#look(() => this.#resolver.resolveSrv(service));
      const addresses = await this.#targets(targets);
      if (addresses.length > 0 || isService || this.#isOver) return addresses;
    }
    return (await this.#hosts(name)).map((host) => ({ host, port: this.#port }));
  }

  /** One name has few addresses, and there may be many names: some at a time. */
  async #targets(records: readonly SrvRecord[]): Promise<readonly Endpoint[]> {
    const targets = records
      .filter(({ name, port }) => name !== '' && port > 0)
      .sort((left, right) => left.priority - right.priority)
      .slice(0, TARGETS_MAX);
    const found: Endpoint[] = [];
    let next = 0;
    const work = async (): Promise<void> => {
      for (let target = targets[next++]; target !== undefined && !this.#isOver; target = targets[next++]) {
        const { name, port } = target;
        for (const host of await this.#hosts(name)) found.push({ host, port });
      }
    };
    await Promise.all(Array.from({ length: TARGETS_AT_A_TIME }, work));
    return found;
  }

  /** Either kind of address is enough: a network without IPv6 may not answer for it. */
  async #hosts(name: string): Promise<readonly string[]> {
    if (isIP(name) !== 0) return [name];
    const [four, six] = await Promise.all([
      this.#look(() => this.#resolver.resolve4(name)),
      this.#look(() => this.#resolver.resolve6(name)),
    ]);
    return [...four, ...six];
  }

  async #look<T>(question: () => Promise<readonly T[]>): Promise<readonly T[]> {
    if (this.#isOver) return [];
    try {
      return await question();
    } catch (error) {
      const code = String((error as NodeJS.ErrnoException).code ?? error);
      if (NOTHING.has(code) || this.#isOver) return [];
      this.#failure ??= `no answer (${code})`;
      this.#isSilent ||= !UNANSWERED.has(code);
      return [];
    }
  }
}
