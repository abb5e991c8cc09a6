/** Loads on several brokers that differ in their flags, in turn: what the flags cost. */

import type { Frames } from './frames.ts';
import { type LoadResult, runLoad } from './load.ts';
import type { Options } from './options.ts';
import type { Progress } from './progress.ts';
import type { Figure } from './report.ts';
import { loadOf, modeOf, PUBLISH_PATH } from './scenario.ts';
import type { StreamLoad } from './stream-load.ts';
import { runStreams, type StreamResult } from './stream-load.ts';
import { type BrokerTarget, startBrokerTarget } from './targets.ts';
import { tlsAddress } from './transport.ts';

export interface Side {
  readonly name: string;
  readonly flags: readonly string[];
  /** The load comes by TLS. */
  readonly isTls?: true;
  /** Goes on beside the loads of this side. Returns what ends it. */
  readonly beside?: (target: BrokerTarget) => () => Promise<void> | void;
}

export interface SideResult {
  readonly streams: readonly StreamResult[];
  readonly unary: readonly LoadResult[];
  /** /metrics at the end. */
  readonly metrics: string;
}

interface Loads {
  readonly stream: (target: BrokerTarget) => StreamLoad;
  readonly frames: Frames;
}

/**
 * All brokers run all the time, one is under load. Each round goes through the sides in turn, every second one backwards, so that a slow minute of the machine
 * hits all of them.
 */
export async function inTurn(
  sides: readonly Side[],
  options: Options,
  progress: Progress,
  loads: Loads,
): Promise<readonly SideResult[]> {
  const { shards, cpuProfileDir, serveFlags } = options;
  const targets: BrokerTarget[] = [];
  try {
    for (const { flags, isTls } of sides) {
      const target = await startBrokerTarget({ shards, cpuProfileDir, flags: [...flags, ...serveFlags] });
      targets.push(isTls === true ? { ...target, address: tlsAddress(target.address) } : target);
    }
    const results = sides.map(() => ({ streams: [] as StreamResult[], unary: [] as LoadResult[] }));
    const turn = async (index: number, what: 'streams' | 'unary'): Promise<void> => {
      const target = targets[index] as BrokerTarget;
      const end = sides[index]?.beside?.(target);
      try {
        if (what === 'streams') results[index]?.streams.push(await runStreams(loads.stream(target)));
        else {
          const load = { path: PUBLISH_PATH, frames: loads.frames, mode: modeOf(options) };
          results[index]?.unary.push(await runLoad(loadOf(target, options, load)));
        }
      } finally {
        await end?.();
      }
    };
    for (const what of ['streams', 'unary'] as const) {
      for (let round = 0; round < options.rounds; round++) {
        const order = sides.map((_, index) => (round % 2 === 0 ? index : sides.length - 1 - index));
        for (const index of order) {
          progress.say(`${what}, round ${round + 1}/${options.rounds}: ${sides[index]?.name}`);
          await turn(index, what);
        }
      }
    }
    progress.clear();
    const metrics = await Promise.all(
      targets.map(async ({ broker }) => (await fetch(`http://${broker.adminAddress}/metrics`)).text()),
    );
    return results.map((result, index) => ({ ...result, metrics: metrics[index] ?? '' }));
  } finally {
    await Promise.all(targets.map((target) => target.stop()));
  }
}

/** Of one side against another. `must`: the least ratio of throughput. */
export function costFigures(
  name: string,
  key: string,
  side: SideResult,
  off: SideResult,
  must: number | null,
): Figure[] {
  const goal = must === null ? {} : { goal: { better: 'higher' as const, must, aim: must } };
  const rate = (what: string, subject: number[], baseline: number[]): Figure => ({
    name: `${what} ${name}`,
    key: `${what}-${key}`,
    unit: '1/s',
    subject,
    baseline,
    baselineName: 'off',
    ...goal,
  });
  const cost = (what: string, subject: number[], baseline: number[]): Figure => ({
    name: `server CPU, ${what} ${name}`,
    key: `${what}-cpu-${key}`,
    unit: 'us',
    subject,
    baseline,
    baselineName: 'off',
  });
  const cpu = (results: readonly { readonly cost: { readonly totalMicrosPerCall: number } }[]): number[] =>
    results.map((it) => it.cost.totalMicrosPerCall);
  const messages = (results: readonly StreamResult[]): number[] => results.map((it) => it.messagesPerSecond);
  const calls = (results: readonly LoadResult[]): number[] => results.map((it) => it.callsPerSecond);
  return [
    rate('stream', messages(side.streams), messages(off.streams)),
    rate('unary', calls(side.unary), calls(off.unary)),
    cost('stream', cpu(side.streams), cpu(off.streams)),
    cost('unary', cpu(side.unary), cpu(off.unary)),
  ];
}

/** A number of a page of metrics, over all its labels. */
export function metricOf(page: string, name: string): number {
  const rows = page.split('\n').filter((row) => row.startsWith(`${name} `) || row.startsWith(`${name}{`));
  return rows.reduce((sum, row) => sum + Number(row.slice(row.lastIndexOf(' ') + 1)), 0);
}
