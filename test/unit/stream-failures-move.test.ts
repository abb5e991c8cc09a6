/** What a shard remembers of refused batches of publish streams goes along when a slot moves: promise 5 holds across the move. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { subjectHash } from '../../src/base/subject.ts';
import { StreamToken } from '../../src/workers/link.ts';
import { StreamFailures } from '../../src/workers/shard/stream-failures.ts';
import { ActiveSubject } from '../../src/workers/shard/subjects.ts';

function subjectOf(name: string): ActiveSubject {
  const bytes = Buffer.from(name);
  return new ActiveSubject({ bytes, hash: subjectHash(bytes, 0, bytes.length) });
}

test('a batch behind a refused one stays behind it at the new shard, until that one comes again', () => {
  const [source, target] = [new StreamFailures(), new StreamFailures()];
  const [leaving, staying] = [subjectOf('a'), subjectOf('b')];
  const token = (sequence: number): number => StreamToken.make(3, sequence);
  source.note(leaving, token(7), 7, 'STORE_FULL');
  source.note(staying, token(9), 9, 'STORE_FULL');
  const taken = structuredClone(source.take(new Set([leaving])));
  assert.equal(source.isBehind(leaving, token(8), 8), false);
  assert.equal(source.isBehind(staying, token(10), 10), true);

  const arrived = subjectOf('a');
  for (const failure of taken) {
    assert.deepEqual([Buffer.from(failure.subject).toString(), failure.hash], ['a', leaving.ref.hash]);
    target.give(arrived, failure);
  }
  assert.equal(arrived.idle, false, 'it must not be forgotten');
  assert.equal(target.isBehind(arrived, token(8), 8), true);
  assert.equal(target.isBehind(arrived, token(7), 7), false);
  target.cameAgain(arrived, token(7));
  assert.equal(target.isBehind(arrived, token(8), 8), false);
});

test('the end of the stream is forgotten at the new shard too', () => {
  const [source, target] = [new StreamFailures(), new StreamFailures()];
  const subject = subjectOf('a');
  source.note(subject, StreamToken.make(3, 7), 7, 'STORE_FULL');
  const arrived = subjectOf('a');
  for (const failure of source.take(new Set([subject]))) target.give(arrived, failure);
  target.streamEnded(3);
  assert.equal(arrived.idle, true);
});
