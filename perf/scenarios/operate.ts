/** What it costs to watch and limit a broker: everything that operators turn on at one time, against all of it off. */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { Options } from '../lib/options.ts';
import type { Progress } from '../lib/progress.ts';
import type { Finding } from '../lib/report.ts';
import { errorNotes, type Scenario } from '../lib/scenario.ts';
import { costFigures, inTurn, type SideResult } from '../lib/sides.ts';
import { type SpanSink, startSpanSink } from '../lib/span-sink.ts';
import type { BrokerTarget } from '../lib/targets.ts';
import { settingOf } from './stream.ts';
import { streamsOn } from './tracing.ts';
import { publishFrames } from './unary.ts';

const EVERY_MS = 1_000;
const LAUNCHER = fileURLToPath(new URL('../../bin/broker.mjs', import.meta.url));
/** What the console's first page and its charts ask for. */
const CONSOLE_PATHS = ['/api/v1/overview', '/api/v1/shards', '/api/v1/subscriptions'];

/** Something that an operator turns on. */
interface Part {
  readonly name: string;
  readonly flags: (sink: SpanSink) => readonly string[];
  /** Goes on while there is load. Returns what ends it; `tell` says what the reader of the figures has to know. */
  readonly beside?: (target: BrokerTarget, tell: (note: string) => void) => () => Promise<void> | void;
}

/** A GET a second of each path; says so if one is not answered with 200. */
function poll(paths: readonly string[]): NonNullable<Part['beside']> {
  return ({ broker }, tell) => {
    const look = (): void => {
      for (const path of paths) {
        fetch(`http://${broker.adminAddress}${path}`).then(
          async (response) => {
            await response.arrayBuffer();
            if (response.status !== 200) tell(`${path} was answered with ${response.status}`);
          },
          (error: unknown) => tell(`${path} was not answered: ${String(error)}`),
        );
      }
    };
    const timer = setInterval(look, EVERY_MS);
    return () => clearInterval(timer);
  };
}

/** `broker top`, with its look once a second. */
const top: NonNullable<Part['beside']> = ({ address }, tell) => {
  const args = [LAUNCHER, 'top', '--address', address, '--output', 'json', '--interval', `${EVERY_MS}ms`];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'ignore', 'ignore'] });
  let isEnding = false;
  const exited = new Promise<void>((resolve) => {
    child.on('exit', (code) => {
      if (!isEnding) tell(`broker top ended by itself, with code ${code}`);
      resolve();
    });
  });
  return async () => {
    isEnding = true;
    child.kill('SIGTERM');
    await exited;
  };
};

const PARTS: readonly Part[] = [
  { name: 'metrics scraped each second', flags: () => [], beside: poll(['/metrics']) },
  {
    name: 'tracing at 1 %',
    flags: ({ endpoint }) => ['--tracing-endpoint', endpoint, '--tracing-ratio', '0.01'],
  },
  { name: 'quotas that nobody reaches', flags: () => ['--quotas-rules', '*=1000000000msg/s'] },
  { name: 'broker top', flags: () => [], beside: top },
  { name: 'the console', flags: () => [], beside: poll(CONSOLE_PATHS) },
];

async function measure(options: Options, progress: Progress): Promise<Finding> {
  const sink = await startSpanSink();
  const told = new Set<string>();
  const tell = (note: string): void => void told.add(note);
  try {
    const sides = [
      { name: 'off', flags: [] },
      {
        name: 'on',
        flags: PARTS.flatMap(({ flags }) => flags(sink)),
        beside: (target: BrokerTarget) => {
          const ends = PARTS.map(({ beside }) => beside?.(target, tell));
          return async () => {
            await Promise.all(ends.map((end) => end?.()));
          };
        },
      },
    ];
    const results = await inTurn(sides, options, progress, {
      stream: (target) => streamsOn(target, options),
      frames: publishFrames(options),
    });
    const [off, on] = results as [SideResult, SideResult];
    return {
      scenario: 'operate',
      setting: `${settingOf(options)}; unary: ${options.inFlight} in flight; closed loops; on: ${PARTS.map(({ name }) => name).join(', ')}`,
      figures: costFigures('with all of it on', 'on', on, off, 0.97),
      notes: [...told, ...errorNotes(results.flatMap(({ streams, unary }) => [...streams, ...unary]))],
    };
  } finally {
    await sink.stop();
  }
}

export const operate: Scenario = {
  name: 'operate',
  about:
    'what watching and limiting costs: metrics, tracing, quotas, broker top and the console, all on against all off',
  defaults: { streams: 4, rounds: 5, durationMs: 5_000, warmupMs: 1_000, inFlight: 256 },
  examples: ['npm run perf -- operate --rounds 10'],
  run: measure,
};
