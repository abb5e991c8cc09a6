/** Producers die at every step of what they do and go on in a new process; now and then the broker dies with them. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Prng } from '../../src/base/prng.ts';
import { type BrokerProcess, makeDataDirectory, startBroker } from '../support/broker.ts';
import { History } from '../support/checker.ts';
import { BrokerClient } from '../support/client.ts';
import type { Campaign, CampaignOptions, CampaignResult } from './campaign.ts';
import { reader } from './kill-load.ts';
import type { ProducerLine, ProducerPlan } from './producer-child.ts';

const CHILD = fileURLToPath(new URL('./producer-child.ts', import.meta.url));
const SUBJECTS = ['made.a', 'made.b', 'made.c', 'made.d'];
/** A life is over by then, or hangs. */
const LIFE_MS_MAX = 60_000;

/** Where a producer dies, and on which of its visits there, from 1: later ones find more on its way. */
export interface Death {
  readonly dieAt: string;
  readonly onVisit: number;
  /** The broker is killed at the same time. */
  readonly withBroker?: boolean;
}

/** Those of a producer that speaks PublishStream by itself, in the order of the protocol. */
export const RAW_DEATHS: readonly Death[] = [
  { dieAt: 'connected', onVisit: 1 },
  { dieAt: 'open sent', onVisit: 1 },
  { dieAt: 'opened', onVisit: 1 },
  { dieAt: 'in the journal', onVisit: 3 },
  { dieAt: 'half a frame sent', onVisit: 4 },
  { dieAt: 'frame sent', onVisit: 1 },
  { dieAt: 'frame sent', onVisit: 9 },
  { dieAt: 'sent again', onVisit: 1 },
  { dieAt: 'answer came', onVisit: 1 },
  { dieAt: 'sent again', onVisit: 2 },
  { dieAt: 'some acknowledged', onVisit: 1 },
  { dieAt: 'answer read', onVisit: 4 },
  { dieAt: 'result in the journal', onVisit: 5 },
  { dieAt: 'refusal came', onVisit: 1 },
  { dieAt: 'refusal came', onVisit: 3 },
  { dieAt: 'half-closed', onVisit: 1 },
  { dieAt: 'answered after half-close', onVisit: 1 },
  { dieAt: 'half-closed', onVisit: 1, withBroker: true },
  { dieAt: 'frame sent', onVisit: 8, withBroker: true },
  { dieAt: 'sent again', onVisit: 1, withBroker: true },
  { dieAt: 'answer read', onVisit: 2, withBroker: true },
];

/** Those of one that uses the TypeScript client. */
export const CLIENT_DEATHS: readonly Death[] = [
  { dieAt: 'publisher made', onVisit: 1 },
  { dieAt: 'in the journal', onVisit: 7 },
  { dieAt: 'publish called', onVisit: 6 },
  { dieAt: 'batches on their way', onVisit: 3 },
  { dieAt: 'read back', onVisit: 2 },
  { dieAt: 'first one stored', onVisit: 1 },
  { dieAt: 'first one stored', onVisit: 4 },
  { dieAt: 'id known', onVisit: 9 },
  { dieAt: 'result in the journal', onVisit: 20 },
  { dieAt: 'closing', onVisit: 1 },
  { dieAt: 'batches on their way', onVisit: 5, withBroker: true },
  { dieAt: 'id known', onVisit: 3, withBroker: true },
];

export interface ProducerLives {
  readonly violations: readonly string[];
  readonly lives: number;
  /** Messages that the producer made; each is stored once in the end. */
  readonly made: number;
  /** Results that came to a life that did not live to write them down. */
  readonly forgotten: number;
}

/** One producer that dies each of these deaths in turn, and a last life that ends by itself; then everything is read back. */
export async function producerLives(kind: 'raw' | 'client', deaths: readonly Death[]): Promise<ProducerLives> {
  const folder = makeDataDirectory('broker-producer-');
  try {
    await using broker = await startBroker({ flags: ['--shards', '2'] });
    const lives = new Lives(broker, { kind, address: broker.address, journal: join(folder, 'journal') });
    for (const death of deaths) await lives.live(death);
    await lives.live(null);
    return await lives.judge();
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

class Lives {
  readonly #broker: BrokerProcess;
  readonly #history = new History();
  readonly #plan: Omit<ProducerPlan, 'dieAt' | 'onVisit'>;
  /** Submissions of the messages of each batch, by key. */
  readonly #drafts = new Map<string, readonly number[]>();
  readonly #pending = new Set<string>();
  /** Attempts of this life, by key. */
  #attempts = new Map<string, readonly number[]>();
  /** First ids that lives were told, written down or not. */
  readonly #told = new Map<string, number>();
  readonly #violations: string[] = [];
  #linesRead = 0;
  #lives = 0;
  #forgotten = 0;

  constructor(broker: BrokerProcess, plan: Pick<ProducerPlan, 'kind' | 'address' | 'journal'>) {
    this.#broker = broker;
    this.#plan = { ...plan, producerId: `made-${plan.kind}`, subjects: SUBJECTS };
  }

  /** Null: it ends by itself. */
  async live(death: Death | null): Promise<void> {
    this.#lives += 1;
    for (const key of this.#pending) this.#attempt(key);
    const { dieAt, onVisit } = death ?? { dieAt: '', onVisit: 0 };
    const plan: ProducerPlan = { ...this.#plan, dieAt, onVisit };
    const child = spawn(process.execPath, [CHILD, JSON.stringify(plan)], { stdio: ['ignore', 'pipe', 'pipe'] });
    const written = { out: '', err: '' };
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      written.out += text;
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      written.err += text;
    });
    const timer = setTimeout(() => child.kill('SIGKILL'), LIFE_MS_MAX);
    const [code, signal] = await once(child, 'close');
    clearTimeout(timer);
    const isAsPlanned = death === null ? code === 0 : signal === 'SIGKILL';
    if (!isAsPlanned) {
      const what = death === null ? 'the last life' : `"${dieAt}", visit ${onVisit}`;
      throw new Error(`${this.#plan.kind} producer, ${what}: ended with ${signal ?? code}\n${written.err}`);
    }
    const killed = death?.withBroker === true ? this.#broker.restart() : null;
    this.#readJournal();
    this.#hear(written.out);
    await killed;
  }

  async judge(): Promise<ProducerLives> {
    if (this.#pending.size > 0) this.#violations.push(`never stored: batches ${[...this.#pending]}`);
    const client = new BrokerClient(this.#broker.address);
    try {
      await this.#history.readBack(reader(client), { from: 'start' });
    } finally {
      client.close();
    }
    const { violations, counts } = this.#history.judge();
    if (counts.messages !== counts.submissions) {
      this.#violations.push(`${counts.submissions} messages were made, ${counts.messages} are there`);
    }
    return {
      violations: [
        ...this.#violations,
        ...violations.map(({ rule, subject, id, detail }) => `${rule}: ${subject} id ${id}: ${detail}`),
      ],
      lives: this.#lives,
      made: counts.submissions,
      forgotten: this.#forgotten,
    };
  }

  #attempt(key: string): void {
    const submissions = this.#drafts.get(key) ?? [];
    this.#attempts.set(
      key,
      submissions.map((submission) => this.#history.beginAttempt(submission)),
    );
  }

  /** What this life has written down, in its order; whatever has no result then is in the dark. */
  #readJournal(): void {
    const { journal } = this.#plan;
    const lines = existsSync(journal) ? readFileSync(journal, 'utf8').split('\n').slice(0, -1) : [];
    for (const line of lines.slice(this.#linesRead)) this.#take(JSON.parse(line) as ProducerLine);
    this.#linesRead = lines.length;
    for (const attempts of this.#attempts.values()) {
      for (const attempt of attempts) this.#history.endAttempt(attempt, { outcome: 'unknown' });
    }
    this.#attempts = new Map();
  }

  #take(line: ProducerLine): void {
    const { key } = line;
    if (line.kind === 'draft') {
      const { subject, bodies, isRefused } = line;
      const producer = this.#plan.producerId;
      const lane = isRefused ? `${producer} ${key}` : producer;
      const submissions = bodies.map((body, part) =>
        this.#history.submit({
          subject,
          payload: Buffer.from(body),
          lane,
          producer,
          sequence: Number(key) * 10 + part,
        }),
      );
      this.#drafts.set(key, submissions);
      this.#pending.add(key);
      this.#attempt(key);
      return;
    }
    if (line.kind !== 'stored') return;
    this.#tell(key, line.firstId);
    this.#pending.delete(key);
    (this.#attempts.get(key) ?? []).forEach((attempt, part) => {
      this.#history.endAttempt(attempt, { outcome: 'ok', id: line.firstId + part });
    });
    this.#attempts.delete(key);
  }

  /** Results that came, whether or not the producer lived to write them down: the next life must be told the same. */
  #hear(text: string): void {
    for (const line of text.split('\n').slice(0, -1)) {
      const { kind, key, ...rest } = JSON.parse(line) as ProducerLine;
      if (kind !== 'saw' || !('firstId' in rest)) continue;
      if (this.#pending.has(key)) this.#forgotten += 1;
      this.#tell(key, rest.firstId);
    }
  }

  #tell(key: string, firstId: number): void {
    const before = this.#told.get(key) ?? firstId;
    if (before !== firstId) this.#violations.push(`batch ${key} was given ids from ${before} and from ${firstId}`);
    this.#told.set(key, firstId);
  }
}

async function runProducerCampaign({ runs, seed, onProgress }: CampaignOptions): Promise<CampaignResult> {
  const random = new Prng(seed);
  const rows = [];
  const violations: string[] = [];
  const kinds = { raw: RAW_DEATHS, client: CLIENT_DEATHS };
  let done = 0;
  for (const kind of ['raw', 'client'] as const) {
    let [lives, made, forgotten] = [0, 0, 0];
    for (let run = 0; run < Math.ceil(runs / 2); run++) {
      onProgress(done++, runs, `${kind} producer`);
      const deaths = kinds[kind].map((death) => ({ ...death, order: random.nextBelow(1 << 20) }));
      const result = await producerLives(
        kind,
        deaths.toSorted((a, b) => a.order - b.order),
      );
      lives += result.lives;
      made += result.made;
      forgotten += result.forgotten;
      violations.push(...result.violations.map((violation) => `${kind}: ${violation}`));
    }
    rows.push({ producer: kind, lives, 'messages made': made, 'results not written down': forgotten });
  }
  return { rows, violations, notes: [] };
}

export const producers: Campaign = {
  name: 'producer',
  about: 'producers are killed at every step of a publish stream and resumed, now and then with the broker',
  defaultRuns: 20,
  run: runProducerCampaign,
};
