import assert from 'node:assert/strict';
import { it } from 'node:test';
import { runSoak } from './soak-campaign.ts';

const PLAN = { durationMs: 10_000, calibrateMs: 2_000, lookEveryMs: 500, seed: 7 };

it('under a steady load with subscribers that come and go nothing grows, the disk keeps to its retention, and no id is missing', async (t) => {
  const { violations, acked, delivered, visits, slopeMibPerHour } = await runSoak(PLAN);
  t.diagnostic(`${acked} acknowledged, ${delivered} delivered to ${visits} visits, ${slopeMibPerHour} MiB an hour`);
  assert.deepEqual(violations, []);
  assert.ok(acked > 1_000 && delivered > acked && visits > 8, 'the load was no load');
});

it('a broker that leaks memory and files is found by it', async () => {
  const leak =
    "import { isMainThread } from 'node:worker_threads'; import { openSync } from 'node:fs'; const kept = []; if (isMainThread) setInterval(() => kept.push(Buffer.alloc(6 << 20, 1), ...Array.from({ length: 10 }, () => openSync('/dev/null'))), 100).unref();";
  const env = { NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(leak)}` };
  const { violations } = await runSoak({ ...PLAN, durationMs: 9_000, options: { env } });
  assert.match(violations.join('\n'), /memory grows by/);
  assert.match(violations.join('\n'), /open files became/);
});
