/** What the keeper of retention takes for the time: rules and files are tested where they are (embedded-parts, embedded-store). */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { Exclusive } from '../../src/base/exclusive.ts';
import type { SegmentSummary } from '../../src/storage/embedded/sidecar.ts';
import type { RaftStatus } from '../../src/workers/messages.ts';
import { RetentionKeeper } from '../../src/workers/store/retention-keeper.ts';
import { MemoryDisk } from './embedded-memory-disk.ts';

const HOUR = 3_600_000;
const NOW = Date.UTC(2026, 0, 1);
/** More than the keeper waits between two looks. */
const LOOK_MS = 10_000;

/** A keeper of `max_age` 1 h over one segment, whose newest message is of `newest`. */
function keeper(t: TestContext, newest: number) {
  t.mock.timers.enable({ apis: ['Date', 'setInterval'], now: NOW });
  const state = { logTime: NOW, released: 0, looks: 0 };
  const summary = { segment: 1, newest, expiresAt: 0, length: 1_000 } as SegmentSummary;
  const retention = new RetentionKeeper({
    disk: new MemoryDisk(),
    dataDirectory: '/data',
    policy: { maxAgeMs: HOUR, maxBytes: 0 },
    shards: {
      segments: () => Promise.resolve([{ segments: state.released > 0 ? [] : [summary], openBytes: 0 }]),
      release: (segments) => {
        state.released += segments.length;
        return Promise.resolve(true);
      },
    },
    raft: {
      status: () => {
        state.looks += 1;
        return Promise.resolve({ logTime: state.logTime } as RaftStatus);
      },
    },
    log: () => undefined,
    turns: new Exclusive(),
  });
  retention.start();
  t.after(() => retention.stop());
  /** One look, with everything that follows from it. */
  const look = async (): Promise<number> => {
    const { looks } = state;
    t.mock.timers.tick(LOOK_MS);
    for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
    assert.ok(state.looks > looks, 'it has not looked');
    return state.released;
  };
  return { state, look };
}

test('[S10] a segment that both clocks call old goes', async (t) => {
  const { look } = keeper(t, NOW - HOUR);
  assert.equal(await look(), 1);
});

test('[S10] a segment that only the wall clock calls old stays until log time has come so far', async (t) => {
  const { state, look } = keeper(t, NOW - 2 * HOUR);
  state.logTime = NOW - 2 * HOUR;
  assert.equal(await look(), 0);
  state.logTime = NOW;
  assert.equal(await look(), 1);
});

test('[S10] a segment that only log time calls old stays', async (t) => {
  const { state, look } = keeper(t, NOW);
  state.logTime = NOW + 2 * HOUR;
  assert.equal(await look(), 0);
});

test('[S10] behind a step of the wall clock nothing goes by age, though log time has followed it', async (t) => {
  const { state, look } = keeper(t, NOW);
  t.mock.timers.setTime(NOW + 2 * HOUR);
  state.logTime = NOW + 2 * HOUR;
  for (let i = 0; i < 3; i++) assert.equal(await look(), 0);
});
