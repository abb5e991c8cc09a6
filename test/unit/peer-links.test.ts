import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeMessage } from '../../src/raft/messages.ts';
import type { Member } from '../../src/replica/types.ts';
import type { SnapshotReader } from '../../src/storage/raft-wal/snapshot-file.ts';
import type { LogLine } from '../../src/workers/messages.ts';
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

test('[R23] a node that joins hears the leader that it was told of, though its table is from before that was taken in anew; later its table decides', async (t) => {
  const row = (node: string, instance: string, port: number): Member => ({
    node,
    instance,
    raft: `127.0.0.1:${port}`,
    grpc: '',
    protocol: 1,
  });
  const [port] = (await freePorts(1)) as [number];
  const listen = { host: '127.0.0.1', port };
  const common = { clusterId: 'c', raftAdvertise: null, grpcAdvertise: '', votersMax: 3 };
  const old = [row('a', 'old', 1)];
  const joins = new PeerLinks({ ...common, listen, joining: [row('a', 'new', 1)] }, 'd', 'd', () => undefined);
  const lines: LogLine[] = [];
  const leads = (): PeerLinks =>
    new PeerLinks({ ...common, listen: { host: '127.0.0.1', port: 0 }, joining: null }, 'a', 'new', (line) =>
      lines.push(line),
    );
  let heard = 0;
  const silent = {
    onUnreachable: () => undefined,
    onSnapshotSent: () => undefined,
    beginSnapshot: () => null,
    openSnapshot: () => null,
  };
  await joins.listen();
  t.after(() => joins.close());
  joins.attach({ ...silent, members: () => old, onFrame: () => void heard++ });
  const first = leads();
  await first.listen();
  first.attach({ ...silent, members: () => [row('d', 'd', port)], onFrame: () => undefined });
  await until(
    () => {
      first.send('d', { kind: 'clock', wallMs: 1 });
      return heard > 0;
    },
    () => 'nothing is heard',
  );
  await first.close();
  joins.caughtUp();
  const second = leads();
  t.after(() => second.close());
  await second.listen();
  second.attach({ ...silent, members: () => [row('d', 'd', port)], onFrame: () => undefined });
  await until(
    () => lines.some(({ message }) => message === 'a member refuses this node'),
    () => 'it is not refused',
  );
});
