/** What a shard with peers makes of the ids that other nodes are given: deliveries, reads, starts, births and slots that leave. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Start } from '../../src/workers/link.ts';
import { PeersRig, TIMEOUT_MS } from './peers-rig.ts';

/** A shard with one reader from the first id on, whose interest is told. */
async function withReader(start: number = Start.EARLIEST, value = 0): Promise<PeersRig> {
  const rig = new PeersRig();
  rig.subscribe(1, start, value);
  await turn(rig);
  return rig;
}

/** Questions are answered, and the log tells where it stands. */
async function turn(rig: PeersRig): Promise<void> {
  for (let round = 0; round < 3; round++) {
    rig.work();
    rig.answerQueries();
    rig.progress();
    await rig.settle();
  }
}

/** A batch of this node is given ids, written and closed. */
async function publish(rig: PeersRig, sequence: number): Promise<void> {
  rig.add(sequence);
  rig.work();
  rig.applyOwn();
  rig.work();
  rig.writeOwn();
  await rig.settle();
  rig.applyOwn();
  await rig.settle();
}

describe('deliveries of a subject of several nodes', () => {
  it('[S11] go in the order of ids; an acknowledgement waits for nobody else', async () => {
    const rig = await withReader();
    const foreign = rig.openForeign('b', 2);
    await publish(rig, 1);
    await turn(rig);
    assert.equal(rig.answers.get(1), 3);
    assert.deepEqual(rig.readers.get(1)?.ids, []);
    rig.storeForeign(foreign, 2);
    rig.closeForeign('b', foreign);
    await turn(rig);
    assert.deepEqual(rig.readers.get(1)?.ids, [1, 2, 3]);
  });

  it('[S11] pass what became void on another node', async () => {
    const rig = await withReader();
    const foreign = rig.openForeign('b', 2);
    await publish(rig, 1);
    rig.revoke(foreign);
    rig.mark(foreign, 2);
    await turn(rig);
    assert.deepEqual(rig.readers.get(1)?.ids, [], 'before the log says void');
    rig.writeOwn();
    await rig.settle();
    rig.applyOwn();
    await turn(rig);
    assert.deepEqual([rig.readers.get(1)?.ids, rig.readers.get(1)?.next], [[3], 4]);
  });

  it('take this node’s own batches from memory when the log has settled them', async () => {
    const rig = await withReader();
    for (let sequence = 1; sequence <= 5; sequence++) {
      rig.add(sequence);
      rig.work();
      rig.applyOwn();
      rig.work();
      rig.writeOwn();
      await rig.settle();
      // As the Raft thread tells it: the close, and in the same round how far that has moved the log.
      rig.applyOwn();
      rig.progress();
      await rig.settle();
    }
    assert.deepEqual(rig.readers.get(1)?.ids, [1, 2, 3, 4, 5]);
    assert.equal(rig.reads, 0, 'the store is read');
  });

  it('are asked for while somebody is there, and no longer', async () => {
    const rig = await withReader();
    assert(rig.isInterested);
    rig.unsubscribe(1);
    rig.work();
    rig.agent.sweep(performance.now());
    rig.work();
    assert(!rig.isInterested);
  });

  it('[S11] do not take what another node has trimmed for a loss, whether or not that is known here', async () => {
    const rig = await withReader(Start.ID, 1);
    const foreign = rig.openForeign('b', 2);
    rig.storeForeign(foreign, 2);
    rig.closeForeign('b', foreign);
    rig.progress();
    rig.trimForeign(2);
    rig.trimForeign(3);
    rig.stored.clear();
    await turn(rig);
    assert.deepEqual([rig.damaged, rig.readers.get(1)?.ended, rig.readers.get(1)?.next], [[], null, 3]);
  });

  it('[S11] end with DATA_LOSS where the log says that a message must be there', async () => {
    const rig = await withReader();
    const foreign = rig.openForeign('b', 2);
    rig.closeForeign('b', foreign);
    rig.progress();
    await rig.settle();
    assert.deepEqual(rig.damaged, [], 'the log is not asked');
    await turn(rig);
    assert.deepEqual([rig.damaged, rig.readers.get(1)?.ended], [[1], 'DATA_LOSS']);
  });
});

describe('starts in a subject of several nodes', () => {
  it('of new messages are behind everything that the log has given when it is asked', async () => {
    const rig = new PeersRig();
    const foreign = rig.openForeign('b', 3);
    rig.subscribe(1, Start.NEW);
    await turn(rig);
    rig.storeForeign(foreign, 3);
    rig.closeForeign('b', foreign);
    await publish(rig, 1);
    await turn(rig);
    assert.deepEqual(rig.readers.get(1)?.ids, [4]);
  });

  it('that are asked for twice, since a move was given up before the first answer, stand where that says', async () => {
    const rig = new PeersRig();
    rig.subscribe(1, Start.NEW);
    const reader = rig.readers.get(1);
    assert.ok(reader);
    rig.work();
    rig.answerQueries();
    rig.subscribe(1, Start.NEW);
    rig.readers.set(1, reader);
    rig.work();
    // Between the two answers ids are given, and they are nobody's to miss: the client was told where it stands.
    const foreign = rig.openForeign('b', 1);
    rig.answerQueries();
    rig.work();
    rig.storeForeign(foreign, 1);
    rig.closeForeign('b', foreign);
    await turn(rig);
    assert.deepEqual(reader.ids, [1]);
  });

  it('at a time wait for what other nodes have on their way, and skip what is earlier or void', async () => {
    const rig = new PeersRig();
    const early = rig.openForeign('b', 1);
    rig.time = 2_000;
    const late = rig.openForeign('c', 1);
    await publish(rig, 1);
    rig.subscribe(1, Start.TIME, 2_000);
    await turn(rig);
    assert.deepEqual(rig.readers.get(1)?.ids, [], 'the store has a late one, with a late one below it');
    rig.time = 1_000;
    rig.storeForeign(early, 1);
    rig.time = 2_000;
    rig.closeForeign('b', early);
    await turn(rig);
    assert.deepEqual(rig.readers.get(1)?.ids, []);
    rig.storeForeign(late, 1);
    rig.closeForeign('c', late);
    await turn(rig);
    assert.deepEqual(rig.readers.get(1)?.ids, [2, 3]);
  });

  it('at a time do not begin with this node’s own message while one below it may be late enough', async () => {
    const rig = await withReader(Start.TIME, 2_000);
    rig.time = 2_000;
    const late = rig.openForeign('b', 1);
    await publish(rig, 1);
    rig.storeForeign(late, 1);
    rig.closeForeign('b', late);
    await turn(rig);
    assert.deepEqual(rig.readers.get(1)?.ids, [1, 2]);
  });

  it('at a time that comes when another node publishes', async () => {
    const rig = await withReader(Start.TIME, 5_000);
    for (const time of [2_000, 5_000, 5_001]) {
      rig.time = time;
      const base = rig.openForeign('b', 1);
      rig.storeForeign(base, 1);
      rig.closeForeign('b', base);
      await turn(rig);
    }
    assert.deepEqual(rig.readers.get(1)?.ids, [2, 3]);
  });
});

describe('a fetch in a subject of several nodes', () => {
  it('finds what another node has closed, also while a lower id is open', async () => {
    const rig = new PeersRig();
    rig.openForeign('b', 1);
    const base = rig.openForeign('c', 1);
    rig.storeForeign(base, 1);
    rig.closeForeign('c', base);
    rig.fetch(base, 1);
    await turn(rig);
    assert.equal(rig.fetched.get(1), 'message');
  });

  it('[S11] waits for the verdict of what another node has open', async () => {
    for (const isVoid of [false, true]) {
      const rig = new PeersRig();
      rig.openForeign('b', 1);
      const base = rig.openForeign('c', 1);
      rig.storeForeign(base, 1);
      rig.fetch(base, 1);
      await turn(rig);
      assert.equal(rig.fetched.get(1), undefined);
      assert(rig.isInterested);
      if (isVoid) {
        rig.revoke(base);
        rig.storeForeign(base, 1, true);
      }
      rig.closeForeign('c', base, isVoid);
      // The id below it is open: the log's settled does not come to it.
      rig.agent.sweep(performance.now());
      await turn(rig);
      assert.equal(rig.fetched.get(1), isVoid ? 'ID_VOID' : 'message');
    }
  });

  it('is answered as soon as the log has settled its id', async () => {
    const rig = new PeersRig();
    const base = rig.openForeign('b', 1);
    rig.fetch(base, 1);
    await turn(rig);
    rig.storeForeign(base, 1);
    rig.closeForeign('b', base);
    await turn(rig);
    assert.equal(rig.fetched.get(1), 'message');
  });

  it('of what was trimmed between the question and the read is told so', async () => {
    const rig = new PeersRig();
    const base = rig.openForeign('b', 1);
    rig.closeForeign('b', base);
    rig.fetch(base, 1);
    rig.work();
    rig.answerQueries();
    rig.trimForeign(2);
    await turn(rig);
    assert.deepEqual([rig.fetched.get(1), rig.damaged], ['ID_TRIMMED', []]);
  });

  it('of what was trimmed while this node was cut off, and waited for its verdict, asks the log again', async () => {
    const rig = await withReader();
    rig.add(1);
    rig.work();
    rig.applyOwn();
    rig.work();
    rig.writeOwn();
    rig.fetch(1, 1);
    await rig.settle();
    rig.answerQueries();
    await rig.settle();
    assert.equal(rig.fetched.get(1), undefined);
    // Somebody else has ended and trimmed it: the log knows the batch no more when this node's own close comes.
    rig.trimForeign(2);
    rig.stored.clear();
    rig.publish.gone(rig.subjects.get(rig.ref.bytes, 0, rig.ref.bytes.length, rig.ref.hash), 1);
    await rig.settle();
    const asked = rig.queries.map(({ id }) => id);
    assert.deepEqual([rig.answers.get(1), rig.fetched.get(1), asked], ['OUTCOME_UNKNOWN', undefined, [1]]);
  });

  it('knows of a trim that was answered on another node', async () => {
    const rig = await withReader();
    await publish(rig, 1);
    await turn(rig);
    rig.trimForeign(2);
    rig.fetch(1, 1);
    await turn(rig);
    assert.equal(rig.fetched.get(1), 'ID_TRIMMED');
  });

  it('and a start are refused when the log has no quorum', () => {
    const rig = new PeersRig();
    rig.fetch(1, 1);
    rig.subscribe(1, Start.NEW);
    rig.work();
    rig.agent.sweep(performance.now() + TIMEOUT_MS - 1_000);
    rig.work();
    assert.equal(rig.fetched.size, 0, 'too early');
    rig.agent.sweep(performance.now() + TIMEOUT_MS);
    rig.work();
    assert.deepEqual([rig.fetched.get(1), rig.readers.get(1)?.ended], ['NOT_READY', 'NOT_READY']);
    rig.answerQueries();
    rig.work();
    assert.equal(rig.readers.get(1)?.isStarted, false);
  });
});

describe('births of subjects on several nodes', () => {
  it('are told by the log, from when it knows that they are wanted', async () => {
    const rig = new PeersRig();
    rig.watch(3);
    rig.work();
    assert(rig.isWatching);
    assert.deepEqual(rig.watched, [], 'main asks what there is before the log watches');
    rig.answerQueries();
    rig.work();
    assert.deepEqual(rig.watched, [3]);
    await publish(rig, 1);
    assert.deepEqual(rig.born, [], 'it is told twice');
    rig.tellBorn();
    rig.work();
    assert.deepEqual(rig.born, ['born']);
  });
});

describe('a slot that leaves a node with peers', () => {
  it('ends the interest in its subjects, and does not wait for fetches of ids that another node has open', async () => {
    const rig = await withReader();
    const base = rig.openForeign('b', 1);
    rig.fetch(base, 1);
    await turn(rig);
    assert.equal(rig.fetched.get(1), undefined);
    rig.drain.begin(1, [rig.ref.hash % 1_024], 0);
    for (let round = 0; round < 3; round++) await turn(rig);
    assert(!rig.drain.active, 'it waits');
    assert.equal(rig.fetched.get(1), 'NOT_READY');
    assert(!rig.isInterested);
    rig.progress();
    rig.work();
  });
});
