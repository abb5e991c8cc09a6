/** `profile FOLDER`: where the processor time of each thread went, from V8's CPU profiles (`--cpu-prof FOLDER`). Pure but for reading them. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { UsageError } from './options.ts';
import { table } from './report.ts';

/** Of a .cpuprofile, what is read here (Chrome DevTools protocol, Profiler.Profile). */
export interface CpuProfile {
  readonly nodes: readonly {
    readonly id: number;
    readonly callFrame: { readonly functionName: string; readonly url: string; readonly lineNumber: number };
  }[];
  /** Ids of the nodes that were on top. */
  readonly samples: readonly number[];
}

export interface ProfileRow {
  readonly place: string;
  /** Of the samples in which the thread did something. */
  readonly share: number;
}

export interface ThreadProfile {
  readonly thread: string;
  /** Of all samples. */
  readonly busy: number;
  /** By share, the largest first. */
  readonly rows: readonly ProfileRow[];
}

const ROWS_MAX = 14;
/** The files that threads begin with, and what they are called. A thread has one of them in its profile. */
const THREADS: Readonly<Record<string, string>> = {
  'raft-thread.ts': 'Raft thread',
  'shard-thread.ts': 'shard thread',
  'main.ts': 'main thread',
  'echo-server.ts': 'bare server',
};

export function threadProfile(profile: CpuProfile): ThreadProfile {
  const places = new Map<number, string>();
  const files = new Set<string>();
  for (const { id, callFrame } of profile.nodes) {
    const file = callFrame.url.split('/').slice(-2).join('/');
    files.add(callFrame.url.split('/').at(-1) ?? '');
    const name = callFrame.functionName === '' ? '(anonymous)' : callFrame.functionName;
    places.set(id, file === '' ? name : `${name} ${file}:${callFrame.lineNumber + 1}`);
  }
  const counts = new Map<string, number>();
  let active = 0;
  for (const id of profile.samples) {
    const place = places.get(id) ?? '';
    if (place === '(idle)') continue;
    active += 1;
    counts.set(place, (counts.get(place) ?? 0) + 1);
  }
  const first = Object.keys(THREADS).find((name) => files.has(name));
  const rows = [...counts]
    .sort(([, a], [, b]) => b - a)
    .slice(0, ROWS_MAX)
    .map(([place, count]) => ({ place, share: count / Math.max(1, active) }));
  return {
    thread: first === undefined ? 'another thread' : (THREADS[first] as string),
    busy: active / Math.max(1, profile.samples.length),
    rows,
  };
}

/** One table a thread. UsageError if the folder has no profile. */
export function formatProfiles(folder: string): string {
  let names: string[];
  try {
    names = readdirSync(folder).filter((name) => name.endsWith('.cpuprofile'));
  } catch (error) {
    throw new UsageError(`${folder}: ${(error as Error).message}`);
  }
  if (names.length === 0)
    throw new UsageError(`${folder}: no *.cpuprofile in it (a scenario's --cpu-prof writes them)`);
  const percent = (share: number): string => `${(share * 100).toFixed(1)} %`;
  return names
    .map((name) => threadProfile(JSON.parse(readFileSync(join(folder, name), 'utf8')) as CpuProfile))
    .map(
      ({ thread, busy, rows }) =>
        `${thread}: something to do in ${percent(busy)} of the samples\n${table([['on top', 'of that'], ...rows.map(({ place, share }) => [place, percent(share)])])}\n`,
    )
    .join('\n');
}
