/** `broker cluster recover` is killed with -9 at every step in a random order, with every store; then it ends, and what was acknowledged is read back. */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { Prng } from '../../src/base/prng.ts';
import { connect } from '../../src/client/index.ts';
import { BrokerProcess } from '../support/broker.ts';
import { command } from '../support/commands.ts';
import { STORES, type Store } from '../support/stores.ts';
import type { Campaign, CampaignOptions, CampaignResult, CampaignRow } from './campaign.ts';

const GAP = 2 ** 20;
const STEPS = ['marked', 'prepared', 'given', 'fenced', 'built', 'aside', 'placed', 'named', 'bound'];
const MESSAGES = 20;

class Violated extends Error {}

function must(holds: boolean, why: string): void {
  if (!holds) throw new Violated(why);
}

/** The last id of before, again and again a gap further on. */
async function exchange(broker: BrokerProcess, ids: Map<number, string>, head: number): Promise<number> {
  const client = connect(broker.address);
  try {
    for (const [id, text] of ids) {
      must((await client.fetch('orders', id)).text === text, `id ${id} is another message, or lost`);
    }
    let last = head;
    for (let i = 0; i < MESSAGES; i++) {
      const text = `${head} ${i}`;
      const id = await client.publish('orders', text);
      must(id === last + 1, `id ${id} was given behind ${last}`);
      ids.set(id, text);
      last = id;
    }
    return last;
  } finally {
    await client.close();
  }
}

async function runOne(store: Store, flags: readonly string[], prng: Prng): Promise<number> {
  const broker = await BrokerProcess.create({ flags: [...flags, '--shards', '2'] });
  try {
    const ids = new Map<number, string>();
    await broker.restart();
    let head = await exchange(broker, ids, 0);
    let kills = 0;
    for (const isDiscarded of [false, true]) {
      await broker.stop();
      if (!isDiscarded) rmSync(join(broker.dataDir, 'raft'), { recursive: true });
      const recover = ['cluster', 'recover', '--data-dir', broker.dataDir, ...flags, '--yes'];
      if (isDiscarded) recover.push('--discard-state');
      const steps = STEPS.filter((step) => store.name !== 'embedded' || step !== 'given');
      for (let left = steps.length; left > 0; left--) {
        const [step] = steps.splice(prng.nextBelow(left), 1);
        const { signal, err } = await command(recover, `recover.${step}=kill`);
        must(signal === 'SIGKILL', `${step}: ${err}`);
        const start = await broker.restart().then(
          () => 'it starts',
          (error: unknown) => String(error),
        );
        must(start.includes('RECOVERY_UNFINISHED'), `a broker behind a kill at ${step}: ${start}`);
        kills += 1;
      }
      const { code, err } = await command(recover);
      must(code === 0, err);
      await broker.restart();
      head = await exchange(broker, ids, head + GAP);
    }
    return kills;
  } finally {
    await broker.dispose();
  }
}

async function run({ runs, seed, onProgress }: CampaignOptions): Promise<CampaignResult> {
  const prng = new Prng(seed);
  const rows: CampaignRow[] = [];
  const violations: string[] = [];
  const notes: string[] = [];
  for (let i = 0; i < runs; i++) {
    for (const store of STORES) {
      onProgress(i, runs, store.name);
      const ends: (() => unknown)[] = [];
      try {
        const flags = await store.flags((end) => ends.push(end));
        if (typeof flags === 'string') notes.push(`${store.name}: ${flags}`);
        else rows.push({ run: i + 1, store: store.name, kills: await runOne(store, flags, prng) });
      } catch (error) {
        if (!(error instanceof Violated)) throw error;
        violations.push(`run ${i + 1}, ${store.name}: ${error.message}`);
      } finally {
        for (const end of ends) await end();
      }
    }
  }
  return { rows, violations, notes: [...new Set(notes)] };
}

export const recover: Campaign = {
  name: 'recover',
  about: 'kill -9 at every step of `broker cluster recover`, with every store',
  defaultRuns: 2,
  run,
};
