/** What TLS costs: the same loads in clear text and by TLS. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Issuer, writePair } from '../../test/support/issuer.ts';
import type { Options } from '../lib/options.ts';
import type { Progress } from '../lib/progress.ts';
import type { Finding } from '../lib/report.ts';
import { errorNotes, type Scenario } from '../lib/scenario.ts';
import { costFigures, inTurn, type Side, type SideResult } from '../lib/sides.ts';
import { settingOf } from './stream.ts';
import { streamsOn } from './tracing.ts';
import { publishFrames } from './unary.ts';

async function measure(options: Options, progress: Progress): Promise<Finding> {
  const folder = mkdtempSync(join(tmpdir(), 'broker-perf-tls-'));
  try {
    const root = await Issuer.root('perf');
    const { cert, key } = writePair(folder, 'node', await root.issue('node'));
    const ca = join(folder, 'ca.pem');
    writeFileSync(ca, root.cert);
    const flags = ['--tls-cert', cert, '--tls-key', key, '--tls-ca', ca, '--admin-tls=false'];
    const sides: readonly Side[] = [
      { name: 'clear text', flags: [] },
      { name: 'TLS', flags, isTls: true },
    ];
    const results = await inTurn(sides, options, progress, {
      stream: (target) => streamsOn(target, options),
      frames: publishFrames(options),
    });
    const [clear, tls] = results as [SideResult, SideResult];
    return {
      scenario: 'tls',
      setting: `${settingOf(options)}; unary: ${options.inFlight} in flight; closed loops; the generators encrypt on the same cores`,
      figures: costFigures('by TLS', 'tls', tls, clear, 0.7),
      notes: errorNotes(results.flatMap(({ streams, unary }) => [...streams, ...unary])),
    };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

export const tls: Scenario = {
  name: 'tls',
  about: 'what TLS costs publish streams and unary publishes, against the same broker in clear text',
  defaults: { streams: 4, rounds: 3, durationMs: 3_000, warmupMs: 1_000, inFlight: 256 },
  examples: ['npm run perf -- tls --rounds 5', 'npm run perf -- tls --duration 5 --warmup 2'],
  run: measure,
};
