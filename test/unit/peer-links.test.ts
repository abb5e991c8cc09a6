import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeMessage, NOBODY } from '../../src/raft/messages.ts';
import type { Member, PeerFrame } from '../../src/replica/types.ts';
import type { SnapshotReader } from '../../src/storage/raft-wal/snapshot-file.ts';
import type { LogLine } from '../../src/workers/messages.ts';
import { PeerLinks } from '../../src/workers/raft/peer-links.ts';
import { freePorts } from '../support/ports.ts';
import { until } from '../support/until.ts';

function row(node: string, instance: string, port: number): Member {
  return { node, instance, raft: `127.0.0.1:${port}`, grpc: '', protocol: 1 };
}

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
    leader: () => NOBODY,
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
    leader: () => NOBODY,
    onUnreachable: () => undefined,
    onSnapshotSent: () => undefined,
    beginSnapshot: () => null,
    openSnapshot: () => null,
  };
  await joins.listen();
  t.after(() => joins.close());
  joins.attach({ ...silent, leader: () => 'b', members: () => old, onFrame: () => void heard++ });
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

test('[R23] a node that joins answers the leader that it was told of, though the snapshot that it was sent does not have it yet; later its table decides', async (t) => {
  const row = (node: string, port: number): Member => ({
    node,
    instance: `i-${node}`,
    raft: `127.0.0.1:${port}`,
    grpc: '',
    protocol: 1,
  });
  const common = { clusterId: 'c', raftAdvertise: null, grpcAdvertise: '', votersMax: 3 };
  const listen = { host: '127.0.0.1', port: 0 };
  const silent = {
    leader: () => NOBODY,
    onUnreachable: () => undefined,
    onSnapshotSent: () => undefined,
    beginSnapshot: () => null,
    openSnapshot: () => null,
  };
  const heard = { a: 0, leader: 0 };
  const open = async (node: 'a' | 'leader'): Promise<number> => {
    const links = new PeerLinks({ ...common, listen, joining: null }, node, `i-${node}`, () => undefined);
    t.after(() => links.close());
    links.attach({ ...silent, members: () => [], onFrame: () => void heard[node]++ });
    return await links.listen();
  };
  const [first, leader] = [row('a', await open('a')), row('leader', await open('leader'))];
  const joins = new PeerLinks({ ...common, listen, joining: [first, leader] }, 'd', 'i-d', () => undefined);
  t.after(() => joins.close());
  await joins.listen();
  // As before the snapshot, and with it.
  let table: readonly Member[] = [];
  joins.attach({ ...silent, members: () => table, onFrame: () => undefined });
  const hear = async (node: 'a' | 'leader'): Promise<void> => {
    const before = heard[node];
    await until(
      () => {
        joins.follow();
        joins.send(node, { kind: 'clock', wallMs: 1 });
        return heard[node] > before;
      },
      () => `${node} hears nothing`,
      10_000,
    );
  };
  await hear('leader');
  table = [first];
  await hear('a');
  await hear('leader');
  joins.caughtUp();
  joins.follow();
  const before = heard.leader;
  joins.send('leader', { kind: 'clock', wallMs: 1 });
  await hear('a');
  assert.equal(heard.leader, before);
});

test('[R23] a node that hears no leader hears what another instance of a member asks, and answers it; what that promises is not heard', async (t) => {
  const listen = { host: '127.0.0.1', port: 0 };
  const common = { clusterId: 'c', listen, raftAdvertise: null, grpcAdvertise: '', votersMax: 3, joining: null };
  const silent = {
    onUnreachable: () => undefined,
    onSnapshotSent: () => undefined,
    beginSnapshot: () => null,
    openSnapshot: () => null,
  };
  const heard = { stale: [] as string[], renewed: [] as string[] };
  const lines: LogLine[] = [];
  const make = (node: string, instance: string): PeerLinks => {
    const links = new PeerLinks(common, node, instance, (line) => lines.push(line));
    t.after(() => links.close());
    return links;
  };
  const nameOf = (frame: PeerFrame): string => (frame.kind === 'raft' ? frame.message.type : frame.kind);
  const [stale, renewed] = [make('b', 'b'), make('c', 'new')];
  const [stalePort, renewedPort] = [await stale.listen(), await renewed.listen()];
  // Where the instance before was, the one that took its place is by now.
  let table = [row('b', 'b', stalePort), row('c', 'old', renewedPort)];
  let leader = 'a';
  stale.attach({
    ...silent,
    members: () => table,
    leader: () => leader,
    onFrame: (_from, frame) => void heard.stale.push(nameOf(frame)),
  });
  renewed.attach({
    ...silent,
    members: () => [row('b', 'b', stalePort), row('c', 'new', renewedPort)],
    leader: () => 'c',
    onFrame: (_from, frame) => void heard.renewed.push(nameOf(frame)),
  });
  const said = (words: string) => lines.some(({ message }) => message.startsWith(words));
  await until(
    () => said('a member refuses this node'),
    () => 'a node that has a leader takes another instance',
  );
  leader = NOBODY;
  const ask = (): void => {
    renewed.send('b', { kind: 'clock', wallMs: 1 });
    renewed.send('b', { kind: 'member', member: row('c', 'new', renewedPort) });
    for (const type of ['append-response', 'vote-response', 'heartbeat-response', 'append'] as const)
      renewed.send('b', { kind: 'raft', message: makeMessage({ type, from: 'c', to: 'b', term: 2 }) });
  };
  await until(
    () => {
      ask();
      return heard.stale.length > 0;
    },
    () => 'no request is heard',
  );
  assert.ok(said('a member speaks as another instance'));
  await until(
    () => {
      stale.follow();
      const message = makeMessage({ type: 'append-response', from: 'b', to: 'c', term: 2 });
      stale.send('c', { kind: 'raft', message });
      return heard.renewed.includes('append-response');
    },
    () => 'who asked gets no answer',
  );
  assert.deepEqual(new Set(heard.stale), new Set(['append']));
  // Another leader is heard: what is on its way from the other instance counts no more, also on the connection that is there.
  leader = 'a';
  ask();
  table = [row('b', 'b', stalePort), row('c', 'new', renewedPort)];
  stale.follow();
  await until(
    () => {
      ask();
      return heard.stale.includes('append-response');
    },
    () => 'a member of the table is not heard in full',
  );
});

test('[G4] a member is dialed where gossip says that this instance of it is by now, and nobody else is', async (t) => {
  const row = (node: string, raft: string): Member => ({ node, instance: `i-${node}`, raft, grpc: '', protocol: 1 });
  const any = { host: '127.0.0.1', port: 0 };
  const common = { clusterId: 'c', raftAdvertise: null, grpcAdvertise: '', votersMax: 3, joining: null };
  const silent = {
    leader: () => NOBODY,
    onUnreachable: () => undefined,
    onSnapshotSent: () => undefined,
    beginSnapshot: () => null,
    openSnapshot: () => null,
  };
  const open = async (node: string, onFrame: () => void, members: readonly Member[]) => {
    const links = new PeerLinks({ ...common, listen: any }, node, `i-${node}`, () => undefined);
    t.after(() => links.close());
    const port = await links.listen();
    links.attach({ ...silent, members: () => members, onFrame });
    return { links, raft: `127.0.0.1:${port}` };
  };
  let heard = 0;
  const [gone] = await freePorts(1);
  const nowhere = `127.0.0.1:${gone}`;
  const moved = await open('b', () => void heard++, [row('a', nowhere)]);
  const { links } = await open('a', () => undefined, [row('b', nowhere)]);
  const hears = async (): Promise<boolean> => {
    links.follow();
    links.send('b', { kind: 'clock', wallMs: 1 });
    return heard > 0;
  };
  links.heardOf([{ node: 'b', instance: 'i-other', raft: moved.raft }]);
  for (let i = 0; i < 20; i += 1) {
    assert.equal(await hears(), false);
    await new Promise((resolve) => setImmediate(resolve));
  }
  links.heardOf([
    { node: 'b', instance: 'i-b', raft: moved.raft },
    { node: 'c', instance: 'i-c', raft: moved.raft },
  ]);
  await until(hears, () => 'it is not dialed at its new address');
});

test('[G1] a wrong address that gossip spreads cuts off nobody who answers where the log says, nor does its end', async (t) => {
  const row = (node: string, raft: string): Member => ({ node, instance: `i-${node}`, raft, grpc: '', protocol: 1 });
  const any = { host: '127.0.0.1', port: 0 };
  const common = { clusterId: 'c', raftAdvertise: null, grpcAdvertise: '', votersMax: 3, joining: null };
  const silent = {
    leader: () => NOBODY,
    onSnapshotSent: () => undefined,
    beginSnapshot: () => null,
    openSnapshot: () => null,
  };
  const [gone] = await freePorts(1);
  const nowhere = `127.0.0.1:${gone}`;
  const lines: LogLine[] = [];
  const open = async (node: string, onFrame: () => void, members: () => readonly Member[]) => {
    const links = new PeerLinks({ ...common, listen: any }, node, `i-${node}`, (line) => lines.push(line));
    t.after(() => links.close());
    const port = await links.listen();
    links.attach({ ...silent, onUnreachable: () => undefined, members, onFrame });
    return { links, raft: `127.0.0.1:${port}` };
  };
  let heard = 0;
  const well = await open(
    'b',
    () => void heard++,
    () => [row('a', nowhere)],
  );
  let table = [row('b', well.raft)];
  const { links } = await open(
    'a',
    () => undefined,
    () => table,
  );
  const connections = (): number =>
    lines.filter(({ message, fields }) => message === 'connected to a peer' && fields.peer === 'b').length;
  const hearsMore = async (count: number): Promise<void> => {
    const end = heard + count;
    await until(
      () => {
        links.follow();
        links.send('b', { kind: 'clock', wallMs: 1 });
        return heard >= end;
      },
      () => `${heard} of ${end}`,
    );
  };
  await hearsMore(1);
  for (const raft of [nowhere, 'no address', well.raft]) {
    links.heardOf([{ node: 'b', instance: 'i-b', raft }]);
    await hearsMore(10);
  }
  links.heardOf([]);
  await hearsMore(10);
  assert.equal(connections(), 1);
  // Where it is by what gossip says, and the log learns that: it is connected already.
  table = [row('b', nowhere)];
  links.heardOf([{ node: 'b', instance: 'i-b', raft: well.raft }]);
  await hearsMore(1);
  assert.equal(connections(), 2);
  table = [row('b', well.raft)];
  links.heardOf([]);
  await hearsMore(10);
  assert.equal(connections(), 2);
});
