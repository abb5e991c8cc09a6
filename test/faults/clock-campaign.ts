/**
 * Clocks that are wrong, and machines that stand still. The wall clock of one node is set hours or ten years ahead, or back, or goes twice or
 * half as fast; whole machines are suspended, with a steady clock that stands still meanwhile and a wall clock that has gone on.
 *
 * Beside the judges of every campaign: log time never goes further ahead of the right time than a leader may be, a leader that is further ahead
 * hands over, messages expire by the clock of the node that is asked and are there again when that is right, and the log tells of the difference.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { Prng } from '../../src/base/prng.ts';
import { BrokerClient, CallError } from '../support/client.ts';
import type { ClusterNode } from '../support/cluster.ts';
import type { FakeClock } from '../support/fake-clock.ts';
import { isUsable } from '../support/tools.ts';
import type { Campaign } from './campaign.ts';
import { type ClusterCampaign, renewed, runClusterCampaign, type Step, type StepOutcome } from './cluster-campaign.ts';
import { termOf } from './cluster-partition-campaign.ts';
import { type ClusterRig, ELECTION_TIMEOUT_MS } from './cluster-rig.ts';
import { FakeClocks } from './fake-clocks.ts';

const HOUR_MS = 3_600_000;
const YEAR_MS = 365 * 24 * HOUR_MS;
/** A leader may be so far ahead of the right time (design, log time), and what was read then takes a moment to come here. */
const LEAD_MAX_MS = 60_000;
const SLACK_MS = 3_000;
/** Behind the last leader's. */
const HANDOVER_ET = 10;
const ALARM_WAIT_MS = 15_000;
const ALARM = 'the clock of another node differs';
const STEPS_PER_PART = 26;
const ACKED_PER_STEP = 500;
const MARK_SUBJECT = 'clock.marks';
const MARK_SECONDS = HOUR_MS / 2_000;
const BRIEF_SECONDS = 1;

type Who = 'leader' | 'follower';

interface Wrong {
  readonly aheadMs: number;
  readonly rate: number;
}

export const CLOCKS = {
  '+2 h': { aheadMs: 2 * HOUR_MS, rate: 1 },
  '+10 y': { aheadMs: 10 * YEAR_MS, rate: 1 },
  '-2 h': { aheadMs: -2 * HOUR_MS, rate: 1 },
  x2: { aheadMs: 0, rate: 2 },
  'x0.5': { aheadMs: 0, rate: 0.5 },
  'x2 from +58 s': { aheadMs: 58_000, rate: 2 },
} satisfies Readonly<Record<string, Wrong>>;

export type ClockName = keyof typeof CLOCKS;

interface ClockDetails {
  readonly which: number;
  readonly lastsMs: number;
}

export function clockStep(clocks: () => FakeClocks, who: Who, name: ClockName, details: ClockDetails): Step {
  return {
    kind: `${who} ${name}`,
    about: `the clock of a ${who}: ${name} for ${(details.lastsMs / ELECTION_TIMEOUT_MS).toFixed(1)} ET`,
    run: async (rig) => {
      const leader = await rig.cluster.untilLeader();
      const followers = rig.cluster.nodes.filter((node) => node !== leader);
      const target = who === 'leader' ? leader : (followers[details.which % followers.length] as ClusterNode);
      const clock = clocks().clocks[target.index] as FakeClock;
      return new WrongClock(rig, target, clock).run(CLOCKS[name], {
        isLeader: who === 'leader',
        lastsMs: details.lastsMs,
      });
    },
  };
}

/** One clock that is wrong for a while, and what is looked at meanwhile. */
class WrongClock {
  readonly #rig: ClusterRig;
  readonly #target: ClusterNode;
  readonly #clock: FakeClock;
  readonly #broken: string[] = [];

  constructor(rig: ClusterRig, target: ClusterNode, clock: FakeClock) {
    this.#rig = rig;
    this.#target = target;
    this.#clock = clock;
  }

  async run(
    wrong: Wrong,
    { isLeader, lastsMs }: { readonly isLeader: boolean; readonly lastsMs: number },
  ): Promise<StepOutcome> {
    const { cluster } = this.#rig;
    const others = cluster.nodes.filter((node) => node !== this.#target);
    const mark = await this.#publish(others[0] as ClusterNode, MARK_SECONDS);
    const brief = await this.#publish(others[0] as ClusterNode, BRIEF_SECONDS);
    const termBefore = await termOf(this.#rig);
    const logLengths = new Map(cluster.nodes.map((node) => [node, node.broker.logs.length]));
    const at = performance.now();
    this.#clock.setAhead(wrong.aheadMs);
    if (wrong.rate !== 1) this.#clock.drift(wrong.rate);
    await this.#rig.answering(cluster.nodes, at);
    await sleep(lastsMs);
    const goesFar = wrong.aheadMs + (wrong.rate - 1) * lastsMs > LEAD_MAX_MS;
    if (isLeader && goesFar) await this.#handedOver(at);
    for (const node of cluster.nodes) await this.#checkLogTime(node);
    await this.#checkExpiry(mark, MARK_SECONDS);
    await this.#checkExpiry(brief, BRIEF_SECONDS);
    if (Math.abs(this.#clock.aheadMs) > SLACK_MS) await this.#alarmed(logLengths);
    const elections = (await termOf(this.#rig)) - termBefore;
    const gapsMs = this.#rig.gapsMs(cluster.nodes, at);
    this.#clock.setAhead(0);
    const rightAt = performance.now();
    await this.#rig.answering(cluster.nodes, rightAt);
    const healMs = performance.now() - rightAt;
    await this.#checkExpiry(mark, MARK_SECONDS);
    if (!isLeader && elections > 0) this.#broken.push(`${elections} elections because of the clock of a follower`);
    const [broken] = this.#broken;
    return { gapsMs, healMs, elections, ...(broken === undefined ? {} : { broken }) };
  }

  async #handedOver(since: number): Promise<void> {
    const until = since + HANDOVER_ET * ELECTION_TIMEOUT_MS;
    while ((await this.#rig.cluster.untilLeader()) === this.#target) {
      if (performance.now() > until) {
        this.#broken.push(`${this.#target.id} leads on with a clock that is ${this.#clock.aheadMs} ms ahead`);
        return;
      }
      await sleep(20);
    }
  }

  /** What is written now has a time that a right clock comes to within a minute. */
  async #checkLogTime(node: ClusterNode): Promise<void> {
    const id = await this.#publish(node, 0);
    const reader = this.#rig.cluster.nodes.find((one) => one !== this.#target) as ClusterNode;
    const publishedAt = (await this.#fetch(reader, id)) ?? 0;
    const aheadMs = publishedAt - Date.now();
    if (aheadMs > LEAD_MAX_MS + SLACK_MS) {
      this.#broken.push(`published through ${node.id}: published_at is ${aheadMs} ms ahead of the right time`);
    }
  }

  /** Each node by its own clock; nobody deletes what one clock calls old. */
  async #checkExpiry(id: number, seconds: number): Promise<void> {
    const { nodes } = this.#rig.cluster;
    const aheadOf = (node: ClusterNode): number => (node === this.#target ? this.#clock.aheadMs : 0);
    const times = await Promise.all(nodes.map(async (node) => [node, await this.#fetch(node, id)] as const));
    const publishedAt = Math.max(...times.map(([, time]) => time ?? 0));
    for (const [node, time] of times) {
      // Nobody has it any more: its time was log time, no earlier than the right one less a moment.
      const expiresAt = (publishedAt === 0 ? this.#publishedAt(id) : publishedAt) + seconds * 1_000;
      const leftMs = expiresAt - (Date.now() + aheadOf(node));
      if (Math.abs(leftMs) < SLACK_MS) continue;
      const isThere = time !== null;
      if (isThere !== leftMs > 0) {
        this.#broken.push(
          `${node.id} ${isThere ? 'has' : 'has not'} id ${id}, which by its clock ends in ${leftMs} ms`,
        );
      }
    }
  }

  async #alarmed(since: ReadonlyMap<ClusterNode, number>): Promise<void> {
    const begun = performance.now();
    const isTold = (): boolean =>
      this.#rig.cluster.nodes.some((node) => node.broker.logs.slice(since.get(node) ?? 0).includes(ALARM));
    while (!isTold()) {
      if (performance.now() - begun > ALARM_WAIT_MS) {
        this.#broken.push(`nobody tells of a clock that is off by ${this.#clock.aheadMs} ms`);
        return;
      }
      await sleep(50);
    }
  }

  readonly #times = new Map<number, number>();

  #publishedAt(id: number): number {
    return this.#times.get(id) ?? 0;
  }

  async #publish(node: ClusterNode, expirationSeconds: number): Promise<number> {
    const client = new BrokerClient(node.address, { timeoutMs: 30_000 });
    try {
      const id = await client.publish({ subject: MARK_SUBJECT, body: Buffer.from('mark'), expirationSeconds });
      const read = await client.fetch(MARK_SUBJECT, id).catch(() => null);
      this.#times.set(id, read?.publishedAt ?? Date.now());
      return id;
    } finally {
      client.close();
    }
  }

  /** Its publish time; null if it has expired. */
  async #fetch(node: ClusterNode, id: number): Promise<number | null> {
    const client = new BrokerClient(node.address, { timeoutMs: 30_000 });
    try {
      return (await client.fetch(MARK_SUBJECT, id)).publishedAt;
    } catch (error) {
      if (error instanceof CallError && error.reason === 'ID_EXPIRED') return null;
      throw error;
    } finally {
      client.close();
    }
  }
}

type Suspended = Who | 'all';

/** A machine that is suspended: nothing of it runs, its steady clock stands still, and when it goes on its wall clock is right. */
export function suspendStep(clocks: () => FakeClocks, who: Suspended, { which, lastsMs }: ClockDetails): Step {
  return {
    kind: `${who} suspended`,
    about: `the machine of ${who === 'all' ? 'all nodes' : `a ${who}`} is suspended for ${(lastsMs / ELECTION_TIMEOUT_MS).toFixed(1)} ET`,
    run: async (rig) => {
      const { nodes } = rig.cluster;
      const leader = await rig.cluster.untilLeader();
      const followers = nodes.filter((node) => node !== leader);
      const one = who === 'leader' ? leader : (followers[which % followers.length] as ClusterNode);
      const stopped = who === 'all' ? nodes : [one];
      const termBefore = await termOf(rig);
      const at = performance.now();
      for (const node of stopped) node.pause();
      await sleep(lastsMs);
      for (const node of stopped) clocks().clocks[node.index]?.stoodStill(performance.now() - at);
      for (const node of stopped) node.resume();
      const resumedAt = performance.now();
      await rig.answering(nodes, resumedAt);
      const healMs = performance.now() - resumedAt;
      const gapsMs = rig.gapsMs(
        nodes.filter((node) => !stopped.includes(node)),
        at,
        resumedAt,
      );
      return { gapsMs, healMs, elections: (await termOf(rig)) - termBefore };
    },
  };
}

/** A suspension is of 1 to 10 ET, and one in so many of up to a minute. */
const LONG_EVERY = 7;

export function clockFaults(): ClusterCampaign & { readonly clocks: () => FakeClocks } {
  const { equip, present: clocks } = renewed(() => new FakeClocks(3));
  const names = Object.keys(CLOCKS) as ClockName[];
  return {
    name: 'clocks',
    nodes: 3,
    needsNetwork: false,
    stepsPerPart: STEPS_PER_PART,
    ackedPerStep: ACKED_PER_STEP,
    clocks,
    equip,
    plan: (seed, runs) => {
      const prng = new Prng(seed);
      return Array.from({ length: runs }, (_, run) => {
        const which = prng.nextBelow(2);
        const lastsMs = ELECTION_TIMEOUT_MS * (1 + prng.nextBelow(6));
        // Two of three are clocks.
        if (run % 3 < 2) {
          const turn = Math.floor(run / 3) * 2 + (run % 3);
          const who = Math.floor(turn / names.length) % 2 === 0 ? 'leader' : 'follower';
          return clockStep(clocks, who, names[turn % names.length] as ClockName, { which, lastsMs });
        }
        const turn = Math.floor(run / 3);
        const longest = turn % LONG_EVERY === LONG_EVERY - 1 ? 60 : 10;
        const suspendedMs = ELECTION_TIMEOUT_MS * (1 + prng.nextBelow(longest));
        return suspendStep(clocks, (['leader', 'follower', 'leader', 'all'] as const)[turn % 4] as Suspended, {
          which,
          lastsMs: suspendedMs,
        });
      });
    },
  };
}

export const clocks: Campaign = {
  name: 'clocks',
  about:
    'three nodes: the clock of one jumps by hours or ten years, or goes x0.5 to x2; machines are suspended for 1 to 60 s',
  defaultRuns: 72,
  run: (options) => {
    if (!isUsable('cc')) {
      const violations = ['it did not run: it needs a C compiler with the headers of libc'];
      return Promise.resolve({ rows: [], violations, notes: [] });
    }
    return runClusterCampaign(clockFaults(), options);
  },
};
