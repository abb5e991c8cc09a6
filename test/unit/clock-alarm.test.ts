import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ClockAlarm } from '../../src/workers/raft/clock-alarm.ts';

test('clocks that differ by more than a second are told of once, again after ten minutes, and when they agree again', () => {
  const said: string[] = [];
  const alarm = new ClockAlarm((level, _, fields) => said.push(`${level} ${fields.peer} ${fields.offsetMs}`));
  const member = { instance: '', raft: '', grpc: '', protocol: 1, isVoter: true, isLeader: false, match: 0 };
  const look = (offsetMs: number | null, count: number): string[] => {
    for (let i = 0; i < count; i++) {
      const others = { ...member, isActive: true, openAllotments: 0 };
      alarm.look({
        node: 'a',
        members: [
          { ...others, node: 'a', clockOffsetMs: 0 },
          { ...others, node: 'b', clockOffsetMs: offsetMs },
        ],
      });
    }
    return said.splice(0);
  };
  assert.deepEqual(look(1_000, 100), []);
  assert.deepEqual(look(-1_001, 3), ['warn b -1001']);
  assert.deepEqual(look(null, 20), [], 'not heard');
  assert.deepEqual(look(-700, 500), [], 'still');
  assert.deepEqual(look(-700, 200), ['warn b -700'], 'ten minutes later');
  assert.deepEqual(look(-500, 2), ['info b -500']);
  assert.deepEqual(look(999, 2), []);
});
