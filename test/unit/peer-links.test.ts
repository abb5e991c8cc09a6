import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeMessage } from '../../src/raft/messages.ts';
import type { SnapshotReader } from '../../src/storage/raft-wal/snapshot-file.ts';
import { PeerLinks } from '../../src/workers/raft/peer-links.ts';
import { freePorts } from '../support/ports.ts';
import { until } from '../support/until.ts';

test('the file of a snapshot that nobody takes is closed', async (t) => {
  const [port] = await freePorts(1);
  const members = ['a', 'b'].map((node) => ({
    node,
    instance: node,
    raft: `127.0.0.1:${port}`,
    grpc: '',
    protocol: 1,
  }));
  const listen = { host: '127.0.0.1', port: 0 };
  const cluster = { clusterId: 'c', listen, raftAdvertise: null, grpcAdvertise: '', votersMax: 3, joining: null };
  const links = new PeerLinks(cluster, 'a', 'a', () => undefined);
  await links.listen();
  t.after(() => links.close());
  const outcomes: string[] = [];
  let open = 0;
  const reader = {
    head: { index: 1, term: 1, meta: new Uint8Array(0) },
    nextChunk: () => null,
    close: () => void open--,
  } as unknown as SnapshotReader;
  links.attach({
    members: () => members,
    onFrame: () => undefined,
    onUnreachable: () => undefined,
    onSnapshotSent: (_to, outcome) => void outcomes.push(outcome),
    beginSnapshot: () => null,
    openSnapshot: () => {
      open += 1;
      return reader;
    },
  });
  const snapshot = { index: 1, term: 1, config: { voters: ['a'], learners: ['b'] }, ref: '' };
  const message = makeMessage({ type: 'snapshot', from: 'a', to: 'b', term: 1, snapshot });
  // The second one finds the first under way.
  links.send('b', { kind: 'raft', message });
  links.send('b', { kind: 'raft', message });
  await until(
    () => outcomes.length === 2,
    () => 'they are under way',
  );
  assert.deepEqual(outcomes, ['failed', 'failed']);
  assert.equal(open, 0);
});
