import assert from 'node:assert/strict';
import { test } from 'node:test';
import { runVirtual } from '../../perf/cluster/virtual-cluster.ts';
import { Times } from '../../perf/cluster/write-load.ts';

const LOAD = { networkMs: 0.2, syncMs: 1, storeMs: 3, rate: 300, subjects: 10, seconds: 0.2 };

test('a virtual cluster closes what it opens, and says which node sent what', () => {
  for (const [voters, learners] of [
    [3, 0],
    [3, 2],
  ] as const) {
    const found = runVirtual({ ...LOAD, voters, learners });
    const offered = LOAD.rate * LOAD.seconds * (voters + learners);
    assert.ok(Math.abs(found.allotments - offered) <= 0.2 * offered, `${found.allotments} of ${offered}`);
    assert.equal(found.terms, 0);
    const others = voters + learners - 1;
    // The log goes to every other node, with what stands round it; and the leader is where all of it comes from.
    assert.ok(found.leader.bytesOut > others * found.logBytes);
    assert.ok(found.voter.bytesIn >= found.logBytes);
    assert.equal(found.learner === null, learners === 0);
    // Two rounds through the log and the store between them.
    assert.ok(found.p50Ms > LOAD.storeMs + 2 * (LOAD.syncMs + LOAD.networkMs), String(found.p50Ms));
  }
});

test('the same virtual load gives the same counts', () => {
  const { cpuMs: _, ...first } = runVirtual({ ...LOAD, voters: 3, learners: 0 }).leader;
  const { cpuMs: __, ...second } = runVirtual({ ...LOAD, voters: 3, learners: 0 }).leader;
  assert.deepEqual(first, second);
});

test('the longest gap is one that reaches into the window, from the event before it', () => {
  let now = 0;
  const times = new Times(() => now);
  for (const at of [10, 500, 510, 900, 905, 2_000]) {
    now = at;
    times.add();
  }
  assert.equal(times.longestGap(505, 800), 290, 'what has not ended counts up to the end');
  assert.equal(times.longestGap(505, 910), 390);
  assert.equal(times.longestGap(904, 1_500), 595);
  assert.equal(times.longestGap(400, 502), 490, 'it began before the window');
});
