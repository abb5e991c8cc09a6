/** One attack after the other on a broker with a good client, who should hardly notice. */
import { BrokerProcess } from '../support/broker.ts';
import type { Seen } from './abuse-client.ts';
import { AbuseRig, type Attacked, type Look, READY_MS_MAX } from './abuse-rig.ts';
import { ATTACKS } from './attacks/all.ts';
import type { Attack } from './attacks/attacker.ts';
import type { Campaign, CampaignOptions, CampaignResult, CampaignRow } from './campaign.ts';

const PHASE_MS = 4_000;
const WARM_MS = 2_000;
/** For connections to be closed when the attacker has gone. */
const RESTORED_MS_MAX = 15_000;
/** A machine that does something else now and then makes every number worse, and none better: an attack fails if it does so each time. */
const TRIES_MAX = 3;

/** What the client may lose: traps.md F5 and F9. */
const GOODPUT_MIN = 0.9;
const P99_RATIO_MAX = 2;
/** Below it (ms) a ratio says nothing: it is a few turns of the event loop, and one fdatasync. */
const P99_FLOOR_MS = 25;
/** More resident memory than before: the declared bounds of what is received and answered (64 MiB each), and garbage. */
export const GROWTH_BYTES_MAX = 256 << 20;
/** What a second attack may add to the first. */
const LEAK_BYTES_MAX = 64 << 20;
/** Lines of the log for one attack. */
export const LINES_MAX = 60;

interface Outcome {
  readonly attack: Attack;
  readonly quiet: Seen;
  readonly decoy: Seen;
  readonly first: Attacked;
  readonly second: Attacked;
  readonly after: Seen;
  readonly end: Look;
  readonly lines: readonly string[];
  readonly violations: readonly string[];
}

async function attackOnce(attack: Attack, seed: number): Promise<Outcome> {
  await using rig = await AbuseRig.start(attack.flags ?? [], seed);
  await rig.measure(WARM_MS);
  const quiet = await rig.measure(PHASE_MS);
  const decoy = await withDecoy(rig, attack);
  const told = rig.lines.length;
  const first = await rig.attack(attack, PHASE_MS);
  const violations: string[] = [];
  await rig.restored(first.before, RESTORED_MS_MAX).catch((error: Error) => violations.push(error.message));
  const second = await rig.attack(attack, PHASE_MS);
  await rig.restored(first.before, RESTORED_MS_MAX).catch((error: Error) => violations.push(error.message));
  const after = await rig.measure(PHASE_MS);
  const end = await rig.look();
  const lines = rig.lines.slice(told);
  violations.push(...(await rig.end()));
  return { attack, quiet, decoy, first, second, after, end, lines, violations };
}

/** The same attack on another broker: the machine is as busy as it will be, and only what the attacker takes of this broker is not there. */
async function withDecoy(rig: AbuseRig, attack: Attack): Promise<Seen> {
  const flags = [...(attack.flags ?? []), '--shards', '1'];
  await using decoy = await BrokerProcess.create({ flags, readyTimeoutMs: READY_MS_MAX });
  await decoy.restart();
  return (await rig.attack(attack, PHASE_MS, { victim: decoy })).seen;
}

const goodput = ({ calls, acked }: Seen): number => acked / Math.max(1, calls);

/** How many times as long as without the attack on this broker. */
function p99Ratio({ quiet, decoy, first, second }: Outcome): number {
  const base = Math.max(P99_FLOOR_MS, quiet.p99, decoy.p99);
  return Math.min(first.seen.p99, second.seen.p99) / base;
}

/** Facts, which no busy machine excuses. */
function faults({ attack, first, second, end, lines, violations }: Outcome): string[] {
  const found = [...violations];
  const growth = Math.max(first.peak.rss, second.peak.rss) - first.before.rss;
  if (growth > GROWTH_BYTES_MAX) found.push(`memory rose by ${mib(growth)} MiB`);
  const leak = end.rss - second.before.rss;
  if (leak > LEAK_BYTES_MAX) found.push(`the second attack left ${mib(leak)} MiB more than the first`);
  const errors = lines.filter((line) => /"level":"(error|fatal)"/.test(line));
  if (errors.length > 0) found.push(`${errors.length} errors in the log: ${errors[0]}`);
  if (lines.length > LINES_MAX) found.push(`${lines.length} lines in the log`);
  if (attack.isTold === true && !lines.some((line) => /"peer":"127\.0\.0\.1:\d+"/.test(line))) {
    found.push('the log does not say who it was');
  }
  return found;
}

function slowness(outcome: Outcome): string[] {
  const found: string[] = [];
  const share = Math.min(goodput(outcome.first.seen), goodput(outcome.second.seen));
  if (share < GOODPUT_MIN) found.push(`${(share * 100).toFixed(0)} % of the calls were answered`);
  if (p99Ratio(outcome) >= P99_RATIO_MAX) found.push(`p99 is ${p99Ratio(outcome).toFixed(1)} times as long`);
  return found;
}

const mib = (bytes: number): number => Math.round(bytes / (1 << 20));

function row(outcome: Outcome, tries: number): CampaignRow {
  const { attack, quiet, decoy, first, second, after, end } = outcome;
  const ms = ({ p50, p99 }: Seen): string => `${p50.toFixed(0)}/${p99.toFixed(0)}`;
  const cut = (first.tally['cut by the server'] ?? 0) + (second.tally['cut by the server'] ?? 0);
  return {
    attack: attack.name,
    'quiet, p50/p99 ms': ms(quiet),
    decoy: ms(decoy),
    attacked: `${ms(first.seen)}, ${ms(second.seen)}`,
    after: ms(after),
    'p99 ratio': p99Ratio(outcome).toFixed(2),
    'goodput %': (Math.min(goodput(first.seen), goodput(second.seen)) * 100).toFixed(1),
    'MiB before, peak, after': `${mib(first.before.rss)} ${mib(Math.max(first.peak.rss, second.peak.rss))} ${mib(end.rss)}`,
    'connections cut': cut,
    tries,
  };
}

async function runAbuse({ runs, seed, first = 0, onProgress }: CampaignOptions): Promise<CampaignResult> {
  const rows: CampaignRow[] = [];
  const violations: string[] = [];
  const notes: string[] = [];
  const chosen = ATTACKS.slice(first, first + runs);
  for (const [number, attack] of chosen.entries()) {
    let best: Outcome | null = null;
    let tries = 0;
    const found = new Set<string>();
    while (tries < TRIES_MAX && (best === null || slowness(best).length > 0)) {
      onProgress(number, chosen.length, `${attack.name}${tries === 0 ? '' : `, try ${tries + 1}`}`);
      tries += 1;
      const outcome = await attackOnce(attack, seed + tries - 1).catch((error: unknown) => String(error));
      if (typeof outcome === 'string') {
        found.add(outcome);
        continue;
      }
      for (const fault of faults(outcome)) found.add(fault);
      if (best === null || p99Ratio(outcome) < p99Ratio(best)) best = outcome;
    }
    if (best === null) {
      violations.push(`${attack.name}: ${[...found].join('; ')}`);
      continue;
    }
    rows.push(row(best, tries));
    // A run that is cut off keeps what it has found, and goes on with --first.
    process.stderr.write(`${first + number + 1} ${JSON.stringify(rows.at(-1))}\n`);
    for (const fault of [...found, ...slowness(best)]) violations.push(`${attack.name}: ${fault}`);
    const { refusals } = best.first.seen;
    if (Object.keys(refusals).length > 0) notes.push(`${attack.name}: the client got ${JSON.stringify(refusals)}`);
  }
  const next = first + chosen.length;
  if (next < ATTACKS.length) notes.push(`goes on with --first ${next + 1}`);
  return { rows, violations, notes };
}

export const abuse: Campaign = {
  name: 'abuse',
  about: 'hostile clients, one kind after the other: a good one beside them hardly notices',
  defaultRuns: ATTACKS.length,
  goesOn: true,
  run: runAbuse,
};
