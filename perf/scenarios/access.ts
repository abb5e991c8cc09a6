/** What it costs to ask who calls: the same publishes with an access file, and without one. */
import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type LoadResult, runLoad } from '../lib/load.ts';
import type { Options } from '../lib/options.ts';
import type { Progress } from '../lib/progress.ts';
import type { Finding } from '../lib/report.ts';
import { errorNotes, loadOf, modeOf, PREFIX, PUBLISH_PATH, type Scenario } from '../lib/scenario.ts';
import { type BrokerTarget, startBrokerTarget } from '../lib/targets.ts';
import { settingOf } from './stream.ts';
import { publishFrames } from './unary.ts';

const TOKEN = 'broker_0123456789012345678901234567890123456789012';
/** Ten rules are asked before the one that allows. */
const RULES = 10;

function accessFile(): string {
  const hash = createHash('sha256').update(TOKEN).digest('hex');
  const deny = Array.from({ length: RULES }, (_, i) => `"*.private${i}.>"`).join(', ');
  return `tokens:\n  - {name: load, hash: "sha256:${hash}", allow: {publish: ["${PREFIX}.>", ">"]}, deny: {publish: [${deny}]}}\n`;
}

async function measure(options: Options, progress: Progress): Promise<Finding> {
  const folder = mkdtempSync('/var/tmp/broker-perf-access-');
  const file = join(folder, 'access.yaml');
  writeFileSync(file, accessFile());
  const { shards, cpuProfileDir, serveFlags } = options;
  const sides = [[], ['--access-file', file]];
  const targets: BrokerTarget[] = [];
  const results: LoadResult[][] = sides.map(() => []);
  try {
    for (const flags of sides)
      targets.push(await startBrokerTarget({ shards, cpuProfileDir, flags: [...flags, ...serveFlags] }));
    for (let round = 0; round < options.rounds; round++) {
      // Every second one backwards, so that a slow minute of the machine hits both.
      for (const side of round % 2 === 0 ? [0, 1] : [1, 0]) {
        progress.say(`round ${round + 1}/${options.rounds}: ${side === 0 ? 'without' : 'with'} an access file`);
        const load = loadOf(targets[side] as BrokerTarget, options, {
          path: PUBLISH_PATH,
          frames: publishFrames(options),
          mode: modeOf(options),
        });
        // Sent to both: what its bytes cost on the wire is not the question.
        results[side]?.push(await runLoad({ ...load, token: TOKEN }));
      }
    }
    progress.clear();
  } finally {
    await Promise.all(targets.map((target) => target.stop()));
    rmSync(folder, { recursive: true, force: true });
  }
  const [off, on] = results as [LoadResult[], LoadResult[]];
  return {
    scenario: 'access',
    setting: `${settingOf(options)}; unary: ${options.inFlight} in flight; closed loops; a token with ${RULES} denied patterns`,
    figures: [
      {
        name: 'unary with an access file',
        key: 'unary-access',
        unit: '1/s',
        subject: on.map((it) => it.callsPerSecond),
        baseline: off.map((it) => it.callsPerSecond),
        baselineName: 'without',
        goal: { better: 'higher', must: 0.97, aim: 0.99 },
      },
      {
        name: 'server CPU, unary with an access file',
        key: 'unary-cpu-access',
        unit: 'us',
        subject: on.map((it) => it.cost.totalMicrosPerCall),
        baseline: off.map((it) => it.cost.totalMicrosPerCall),
        baselineName: 'without',
      },
    ],
    notes: errorNotes(results.flat()),
  };
}

export const access: Scenario = {
  name: 'access',
  about: 'what asking who calls costs unary publishes: with an access file and a token, against without',
  defaults: { rounds: 5, durationMs: 3_000, warmupMs: 1_000, inFlight: 256 },
  examples: ['npm run perf -- access --rounds 10'],
  run: measure,
};
