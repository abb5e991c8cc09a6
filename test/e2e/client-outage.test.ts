/** A publisher of many subjects over an outage of the store. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { connect } from '../../src/client/index.ts';
import { startBroker } from '../support/broker.ts';
import { temporaryFolder } from '../support/temporary.ts';

const SUBJECTS = 1_000;
const ROUNDS = 3;

test('[S13] more subjects than sequences may be on their way: all that was taken while the store took nothing is stored soon after it is back', {
  timeout: 180_000,
}, async (t) => {
  const isBack = join(temporaryFolder(t), 'back');
  await using broker = await startBroker({
    flags: ['--shards', '2', '--batch-linger', '0'],
    env: { BROKER_FAILPOINTS: `segment.write=eio!${isBack}` },
  });
  await using client = connect(broker.address);
  await using publisher = client.publisher();
  const back = setTimeout(() => writeFileSync(isBack, ''), 2_000);
  t.after(() => clearTimeout(back));
  for (let round = 0; round < ROUNDS; round++) {
    for (let i = 0; i < SUBJECTS; i++) {
      while (!publisher.tryPublish(`s.${i}`, `${round}`)) await publisher.ready();
    }
  }
  await publisher.flush({ signal: AbortSignal.timeout(100_000) });
  assert.equal(publisher.stats.stored, SUBJECTS * ROUNDS);
  for (const i of [0, 500, 999]) {
    const texts: string[] = [];
    for await (const message of client.subscribe(`s.${i}`, { start: 'earliest' })) {
      texts.push(message.text);
      if (texts.length === ROUNDS) break;
    }
    assert.deepEqual(texts, ['0', '1', '2']);
  }
});
