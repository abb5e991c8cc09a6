/** What `broker check` looks at, and how each value is judged. Pure: facts in, findings out. */
import type { ClusterMembers, NodeStatus } from '../../client/index.ts';
import { CHECK_UNKNOWN } from '../failure.ts';
import { counted, safe } from '../top/text.ts';

export const LEVELS = ['ok', 'warning', 'critical', 'unknown'] as const;
export type Level = (typeof LEVELS)[number];

/** As plugins of Nagios end. */
export const CHECK_EXIT: Readonly<Record<Level, number>> = { ok: 0, warning: 1, critical: 2, unknown: CHECK_UNKNOWN };

/** What was found out; null where it could not be. */
export interface Facts {
  /** Why nothing answers; null: something does. */
  readonly unreachable: string | null;
  readonly status: NodeStatus | null;
  readonly members: ClusterMembers | null;
  readonly lagMax: number | null;
  /** Of each member that was asked, this one included: its version, and its clock less that of this machine, in ms. */
  readonly nodes: readonly NodeFact[];
}

export interface NodeFact {
  readonly node: string;
  /** Null: it does not answer. */
  readonly version: string | null;
  readonly clockOffsetMs: number;
}

export interface Threshold {
  readonly warning: number | null;
  readonly critical: number | null;
}

export interface Finding {
  readonly check: string;
  readonly level: Level;
  /** Null: it has none, or it is not known. */
  readonly value: number | null;
  readonly unit: string;
  readonly threshold: Threshold;
  readonly message: string;
}

interface Measured {
  readonly value: number | null;
  readonly message: string;
  /** Where no number decides. */
  readonly level?: Level;
}

interface Check {
  readonly what: string;
  /** '' where no threshold can be set. */
  readonly unit: string;
  /** What is bad: a value of at least the threshold, or one below it. */
  readonly bad: 'high' | 'low' | null;
  readonly threshold: Threshold;
  /** Null: nothing to say of a node alone. */
  measure(facts: Facts): Measured;
}

const NONE: Threshold = { warning: null, critical: null };
const UNKNOWN: Measured = { value: null, message: 'not known', level: 'unknown' };

/** Of the status; without one nothing is known. */
function ofStatus(measure: (status: NodeStatus, facts: Facts) => Measured): Check['measure'] {
  return (facts) => (facts.status === null ? UNKNOWN : measure(facts.status, facts));
}

function judged(level: Level, message: string): Measured {
  return { value: null, message, level };
}

function number(value: number): string {
  return value.toLocaleString('en-US', { maximumFractionDigits: 1 });
}

function percentOf(part: number, whole: number): number {
  return whole > 0 ? Math.round((part / whole) * 1_000) / 10 : 0;
}

export const CHECKS: Readonly<Record<string, Check>> = {
  reachable: {
    what: 'a broker answers at the address',
    unit: '',
    bad: null,
    threshold: NONE,
    measure: ({ unreachable, status }) =>
      unreachable === null
        ? judged('ok', `${safe(status?.nodeId ?? '')} ${safe(status?.version ?? '')}`)
        : judged('critical', unreachable),
  },
  ready: {
    what: 'it takes traffic (as /readyz says)',
    unit: '',
    bad: null,
    threshold: NONE,
    measure: ofStatus(({ ready, notReady }) =>
      ready ? judged('ok', 'ready') : judged('critical', `not ready: ${notReady.join('; ')}`),
    ),
  },
  leader: {
    what: 'the cluster has a leader',
    unit: '',
    bad: null,
    threshold: NONE,
    measure: ofStatus(({ role, leader }) => {
      if (role === 'alone') return judged('ok', 'a node alone leads itself');
      return leader === '' ? judged('critical', 'no leader is known') : judged('ok', `${safe(leader)} leads`);
    }),
  },
  tolerance: {
    what: 'voters that may fail from here on with a majority left; of a cluster of one voter nothing is asked',
    unit: 'voters',
    bad: 'low',
    threshold: { warning: 1, critical: null },
    measure: ({ members }) => {
      if (members === null) return UNKNOWN;
      const voters = members.members.filter(({ role }) => role === 'voter').length;
      if (voters <= 1) return judged('ok', 'one voter: there is nothing to tolerate');
      if (members.toleratesNow < 0) return judged('critical', 'the leader does not say whom it hears');
      const heard = members.members.filter(({ role, isActive }) => role === 'voter' && isActive).length;
      const message = `${heard} of ${voters} voters are heard, ${members.toleratesNow} of them may fail`;
      return { value: members.toleratesNow, message };
    },
  },
  disk_free: {
    what: 'of the disk of the data directory',
    unit: '%',
    bad: 'low',
    threshold: { warning: 15, critical: 5 },
    measure: ofStatus(({ diskFreeBytes, diskBytes }) => {
      const value = percentOf(diskFreeBytes, diskBytes);
      return { value, message: `${value} % free, ${number(diskFreeBytes / 1e9)} GB` };
    }),
  },
  clock_skew: {
    what: 'between the clocks of the nodes; of a node alone, between its clock and that of this machine',
    unit: 'ms',
    bad: 'high',
    threshold: { warning: 1_000, critical: 60_000 },
    measure: ({ nodes }) => {
      const known = nodes.filter(({ version }) => version !== null).map(({ clockOffsetMs }) => clockOffsetMs);
      if (known.length === 0) return UNKNOWN;
      const offsets = known.length === 1 ? [0, ...known] : known;
      const value = Math.round(Math.max(...offsets) - Math.min(...offsets));
      const between = known.length === 1 ? 'from this machine' : `between ${known.length} nodes`;
      return { value, message: `${number(value)} ms ${between}` };
    },
  },
  subjects: {
    what: 'used of subjects.max',
    unit: '%',
    bad: 'high',
    threshold: { warning: 80, critical: 95 },
    measure: ofStatus(({ subjects, subjectsMax }) => used(subjects, subjectsMax)),
  },
  producers: {
    what: 'used of producers.max',
    unit: '%',
    bad: 'high',
    threshold: { warning: 80, critical: 95 },
    measure: ofStatus(({ producers, producersMax }) => used(producers, producersMax)),
  },
  lag: {
    what: 'ids that the subscription furthest behind has still to be sent',
    unit: 'ids',
    bad: 'high',
    threshold: NONE,
    measure: ({ lagMax }) =>
      lagMax === null ? UNKNOWN : { value: lagMax, message: `${counted(lagMax, 'id')} at most` },
  },
  event_loop: {
    what: "of the main thread's time, over ten seconds",
    unit: '%',
    bad: 'high',
    threshold: { warning: 80, critical: 95 },
    measure: ofStatus(({ mainUtilization }) => {
      const value = percentOf(mainUtilization, 1);
      return { value, message: `${value} % busy` };
    }),
  },
  store_write: {
    what: 'p99 of a durable write, over ten seconds, to a factor of two',
    unit: 'ms',
    bad: 'high',
    threshold: { warning: 500, critical: 5_000 },
    measure: ofStatus(({ storeWriteP99Ms }) => ({
      value: storeWriteP99Ms,
      message: storeWriteP99Ms === 0 ? 'nothing was written' : `p99 ${number(storeWriteP99Ms)} ms`,
    })),
  },
  damaged: {
    what: 'reads that met damaged or missing messages since the start',
    unit: 'reads',
    bad: 'high',
    threshold: { warning: null, critical: 1 },
    measure: ofStatus(({ damaged }) => ({ value: damaged, message: counted(damaged, 'read') })),
  },
  durability: {
    what: 'acknowledged messages survive a power cut',
    unit: '',
    bad: null,
    threshold: NONE,
    measure: ofStatus(({ durability, store }) =>
      durability === 'durable'
        ? judged('ok', `${store}: durable`)
        : judged('warning', `${store}: ${durability}, not durable (\`broker status\` says why)`),
    ),
  },
  versions: {
    what: 'all nodes run the same version',
    unit: '',
    bad: null,
    threshold: NONE,
    measure: ({ nodes }) => {
      const known = nodes.flatMap(({ version }) => (version === null ? [] : [version]));
      if (known.length === 0) return UNKNOWN;
      const versions = [...new Set(known)].sort();
      if (versions.length > 1) {
        const each = nodes.map(({ node, version }) => `${safe(node)} ${safe(version ?? 'unknown')}`);
        return judged('warning', `different versions: ${each.join(', ')}`);
      }
      const silent = nodes.filter(({ version }) => version === null).map(({ node }) => safe(node));
      if (silent.length > 0) return judged('unknown', `${safe(versions[0] ?? '')}; no answer of ${silent.join(', ')}`);
      return judged('ok', `${safe(versions[0] ?? '')} on ${known.length === 1 ? 'one node' : `${known.length} nodes`}`);
    },
  },
};

function used(part: number, max: number): Measured {
  const value = percentOf(part, max);
  return { value, message: `${number(part)} of ${number(max)} (${value} %)` };
}

/** In the order of CHECKS. `thresholds`: what was set in place of the defaults. */
export function judge(
  facts: Facts,
  checks: readonly string[],
  thresholds: Readonly<Record<string, Threshold>>,
): Finding[] {
  // Of a broker that does not answer nothing else can be said.
  const asked = facts.unreachable === null ? checks : checks.filter((name) => name === 'reachable');
  return (asked.length > 0 ? asked : ['reachable']).flatMap((name) => {
    const check = CHECKS[name];
    if (check === undefined) return [];
    const threshold = thresholds[name] ?? check.threshold;
    const { value, message, level } = check.measure(facts);
    return [
      {
        check: name,
        level: level ?? levelOf(value, check.bad, threshold),
        value,
        unit: check.unit,
        threshold,
        message,
      },
    ];
  });
}

export function levelOf(value: number | null, bad: Check['bad'], { warning, critical }: Threshold): Level {
  if (value === null) return 'unknown';
  const isBeyond = (limit: number | null): boolean =>
    limit !== null && (bad === 'low' ? value < limit : bad === 'high' && value >= limit);
  if (isBeyond(critical)) return 'critical';
  return isBeyond(warning) ? 'warning' : 'ok';
}

/** What is known to be bad counts before what is not known. */
export function worst(findings: readonly Finding[]): Level {
  const order: readonly Level[] = ['critical', 'warning', 'unknown'];
  return order.find((level) => findings.some((finding) => finding.level === level)) ?? 'ok';
}
