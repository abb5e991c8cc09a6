/** What is made of gossip: whom to ask, how many are there, where Raft ports are, and how it is shown beside what Raft knows. Never who votes. */
import assert from 'node:assert/strict';
import { describe, it, test } from 'node:test';
import type { Member as WireMember } from '../../src/grpc/gen/broker/v1/cluster.ts';
import type { NodeIdentity } from '../../src/storage/data-directory.ts';
import { StartError } from '../../src/storage/start-error.ts';
import { brokersIn, raftAddressesIn, seedsIn, tagsOf } from '../../src/workers/gossip/gossip-view.ts';
import type { GossipMember, GossipStatus } from '../../src/workers/gossip/types.ts';
import { joinPort } from '../../src/workers/membership/ask-seed.ts';
import type { MembershipOptions } from '../../src/workers/membership/membership.ts';
import { finderOf, openGossip } from '../../src/workers/membership/open-gossip.ts';
import { type Gossip, PeerFinder } from '../../src/workers/membership/peer-finder.ts';
import { seenByGossip } from '../../src/workers/membership/seen-by-gossip.ts';
import { temporaryFolder } from '../support/temporary.ts';

const OWN = {
  cluster: 'broker',
  clusterId: 'c1',
  instance: 'a'.repeat(32),
  advertised: { raft: 'n1:12000', grpc: 'n1:8081' },
  version: '0.1.0',
  protocol: 1,
};

function seen(node: string, status: GossipStatus = 'alive', tags: Record<string, string> = {}): GossipMember {
  const advertised = { raft: `${node}:12000`, grpc: `${node}:8081` };
  const own = tagsOf({ ...OWN, instance: `i-${node}`, advertised });
  const address = { host: '10.0.0.1', port: 7946 };
  return { node, status, address, tags: { ...own, ...tags }, protocol: [2, 5, 5], isSelf: false };
}

const AGENT: GossipMember = { ...seen('agent'), tags: { role: 'web' } };

test('a broker’s tags are under 512 bytes, with names of the longest kind', () => {
  const host = `${'h'.repeat(63)}.${'d'.repeat(63)}`;
  const tags = tagsOf({
    ...OWN,
    cluster: 'c'.repeat(63),
    clusterId: '01234567-89ab-cdef-0123-456789abcdef',
    advertised: { raft: `${host}:12000`, grpc: `${host}:8081` },
  });
  const bytes = Object.entries(tags).reduce((sum, [key, value]) => sum + key.length + value.length + 6, 4);
  assert.ok(bytes <= 512, `${bytes} bytes`);
});

test('tags that are too large are refused before a port is opened, naming the keys; those with the id of a cluster to come too', async (t) => {
  const log = { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined };
  const gossip = { enabled: true, listen: { host: '127.0.0.1', port: 0 }, advertise: null, join: null };
  const secrets = { key: null, label: null, profile: 'local' };
  const start = async (length: number): Promise<PeerFinder> => {
    const host = `${'h'.repeat(length)}:12000`;
    const given = { config: { gossip: { ...gossip, ...secrets }, bootstrapExpect: 0 }, seeds: [], seeks: false };
    const rest = { gossips: true, openDiscovery: () => null, advertised: { raft: host, grpc: host }, log };
    const options = { ...given, ...rest } as unknown as MembershipOptions;
    const node = { nodeId: 'n1', instanceId: 'i'.repeat(32), clusterId: '', clusterName: 'broker' } as NodeIdentity;
    const finder = finderOf(options, node);
    t.after(() => finder.stop());
    await openGossip(finder, options, { path: temporaryFolder(t), node, metrics: null });
    return finder;
  };
  let most = 100;
  for (;;) {
    try {
      const finder = await start(most);
      finder.entered('c'.repeat(36));
      assert.equal(finder.view()?.[0]?.tags.cid?.length, 36, `${most}`);
      await finder.stop();
    } catch (error) {
      if (!(error instanceof StartError)) throw error;
      assert.match(error.message, /shorten raft\.advertise, grpc\.advertise or cluster by [1-9]\d?$/);
      break;
    }
    most += 10;
    assert.ok(most < 250, 'nothing is too large');
  }
});

describe('Whom to ask for being taken in', () => {
  const ask = (view: readonly GossipMember[], clusterId = 'c1') =>
    seedsIn(view, { cluster: 'broker', clusterId, self: 'n1' });

  it('are brokers of the cluster that seem to be there; those that have found it come first', () => {
    const view = [seen('n4', 'alive', { cid: '' }), seen('n3', 'suspect'), seen('n2')];
    assert.deepEqual(ask(view), ['n2:8081', 'n3:8081', 'n4:8081']);
  });

  it('[G2] are not the node itself, agents, brokers of other clusters, nor who is gone', () => {
    const gone = (['left', 'failed', 'leaving'] as const).map((status) => seen(status, status));
    const others = [seen('x', 'alive', { cluster: 'other' }), seen('y', 'alive', { cid: 'c2' }), AGENT];
    assert.deepEqual(ask([seen('n1'), ...gone, ...others, seen('z', 'alive', { grpc: '' })]), []);
  });
});

test('[G3] as many brokers are there as are alive or only suspected, of this cluster name, and not of a cluster of another database', () => {
  const none = { cid: '' };
  const view = [seen('n1', 'alive', none), seen('n2', 'suspect', none), seen('n3', 'failed', none), AGENT];
  const others = [seen('n4', 'left', none), seen('x', 'alive', { cluster: 'other', cid: '' }), seen('y')];
  assert.equal(brokersIn([...view, ...others], 'broker'), 2);
});

test('[G4] where Raft ports are is said by brokers of this cluster id only, with the instance they are', () => {
  const view = [seen('n3', 'failed'), seen('n2', 'alive', { raft: '10.9.9.9:1' }), seen('n4', 'alive', { cid: 'c2' })];
  assert.deepEqual(raftAddressesIn(view, 'broker', 'c1'), [{ node: 'n2', instance: 'i-n2', raft: '10.9.9.9:1' }]);
});

function wire(nodeId: string, rest: Partial<WireMember> = {}): WireMember {
  return {
    ...{ nodeId, instanceId: `i-${nodeId}`, raftAddress: `${nodeId}:12000`, grpcAddress: `${nodeId}:8081` },
    ...{ role: 'voter', isLeader: false, matchIndex: 9, isActive: true, protocol: 1, openAllotments: 0, ...rest },
  };
}

/** What Raft knows of n2, what gossip says -> why they differ. */
const DIFFERENCES: readonly [string, Partial<WireMember>, GossipMember | null, RegExp][] = [
  ['both hear it', {}, seen('n2'), /^$/],
  ['suspected, and heard', {}, seen('n2', 'suspect'), /^$/],
  ['doubted by both', { isActive: false }, seen('n2', 'suspect'), /^$/],
  ['gone for both', { isActive: false }, seen('n2', 'failed'), /^$/],
  ['gossip has not met it', {}, null, /^gossip has not met it/],
  ['[P9] failed, and heard', {}, seen('n2', 'failed'), /the leader hears it.*it stays a voter$/],
  [
    'left, and heard',
    { role: 'learner' },
    seen('n2', 'left'),
    /it is stopping, or was started again .*; it stays a learner$/,
  ],
  ['left, and not heard', { isActive: false }, seen('n2', 'left'), /start it again.*`broker cluster remove n2`$/],
  ['alive, and not heard', { isActive: false }, seen('n2'), /nothing gets through to its Raft port \(n2:12000\)$/],
  ['another instance, and heard', {}, seen('n2', 'alive', { inst: 'new' }), /two nodes have this name, give one/],
  [
    'another instance',
    { isActive: false },
    seen('n2', 'alive', { inst: 'new' }),
    /`broker cluster remove n2\/i-n2` lets the new one in$/,
  ],
  ['of another cluster', {}, seen('n2', 'alive', { cid: 'c2' }), /two clusters gossip together/],
  ['an agent of that name', {}, { ...AGENT, node: 'n2' }, /no broker gossips under the name of this voter/],
  ['a node alone, whose Raft port is not open', { raftAddress: '' }, seen('n2'), /^$/],
  ['[G4] moved', {}, seen('n2', 'alive', { raft: '10.0.0.9:1' }), /Raft port is at 10\.0\.0\.9:1 by now/],
];

describe('The two views', () => {
  const raft = { clusterId: 'c1', clusterName: 'broker', isHeard: true };
  for (const [name, member, gossip, why] of DIFFERENCES) {
    it(`${name}`, () => {
      const view = gossip === null ? [] : [gossip];
      const [row, ...rest] = seenByGossip({ ...raft, members: [wire('n2', member)] }, view);
      assert.deepEqual(rest, []);
      assert.match(row?.difference ?? 'no row', why);
      assert.equal(row?.status, gossip?.status ?? '');
    });
  }

  it('say nothing of who is heard where the leader does not say', () => {
    const members = [wire('n2', { isActive: false, matchIndex: -1 })];
    assert.equal(seenByGossip({ ...raft, isHeard: false, members }, [seen('n2')])[0]?.difference, '');
  });

  it('show whom only gossip has met, with the reason', () => {
    const view = [
      seen('waits', 'alive', { cid: '' }),
      seen('removed'),
      seen('gone', 'failed'),
      seen('other', 'alive', { cluster: 'x' }),
      seen('twin', 'alive', { cid: 'c2' }),
      AGENT,
    ];
    const rows = seenByGossip({ ...raft, members: [] }, view);
    assert.deepEqual(
      rows.map(({ nodeId, isMember, difference }) => [nodeId, isMember, difference]),
      [
        ['agent', false, 'no broker: an agent that gossips along'],
        ['gone', false, 'it was removed, or never taken in; gossip forgets it in a day'],
        ['other', false, 'a broker of cluster "x"'],
        ['removed', false, 'it was removed from the cluster and runs on: stop it'],
        ['twin', false, 'a broker of another cluster of the same name (c2)'],
        ['waits', false, 'it is about to ask to be taken in'],
      ],
    );
  });

  it('are one without gossip', () => {
    assert.deepEqual(seenByGossip({ ...raft, members: [wire('n2')] }, null), []);
  });
});

describe('A node that looks for others', () => {
  class FakeGossip implements Gossip {
    members: readonly GossipMember[] = [];
    readonly tags: Readonly<Record<string, string>>[] = [];
    readonly calls: string[] = [];
    view = () => this.members;
    keys = () => [];
    decode = () => null;
    queryKeys = () => ({ refusal: 'KEYRING_ABSENT' }) as const;
    setTags = (tags: Readonly<Record<string, string>>) => void this.tags.push(tags);
    leave = async () => void this.calls.push('leave');
    stop = async () => void this.calls.push('stop');
  }
  const options = { nodeId: 'n1', own: { ...OWN, clusterId: '' }, join: ['seed:1'], expect: 3, hasSource: true };

  it('asks whom it was told of and whom it has met, each once; alone it sees itself', () => {
    const finder = new PeerFinder(options);
    assert.deepEqual([finder.seen(), finder.list('c1'), finder.view()], [1, ['seed:1'], null]);
    const gossip = new FakeGossip();
    finder.use(gossip, null);
    // It has stopped by itself, having lost its name: that is no view in which nobody is.
    assert.equal(finder.view(), null);
    gossip.members = [seen('n1', 'alive', { cid: '' }), seen('n2'), seen('n3', 'alive', { grpc: 'seed:1' })];
    assert.deepEqual([finder.seen(), finder.list('c1')], [1, ['seed:1', 'n2:8081']]);
  });

  it('says its cluster when it has found it, and tells the Raft thread of addresses when they change', () => {
    const finder = new PeerFinder(options);
    const gossip = new FakeGossip();
    finder.use(gossip, null);
    const heard: unknown[] = [];
    gossip.members = [seen('n2')];
    finder.follow({ heardOf: (addresses) => heard.push(addresses) });
    assert.deepEqual(heard, []);
    finder.entered('c1');
    assert.equal(gossip.tags.at(-1)?.cid, 'c1');
    finder.changed();
    finder.changed();
    assert.deepEqual(heard, [[{ node: 'n2', instance: 'i-n2', raft: 'n2:12000' }]]);
    gossip.members = [seen('n2', 'failed')];
    finder.changed();
    assert.deepEqual(heard.length, 2);
  });

  it('keeps nothing of a wait that ended without news', async () => {
    const finder = new PeerFinder(options);
    const port = joinPort(
      () => undefined,
      (signal) => finder.news(signal),
      () => null,
    );
    for (let i = 0; i < 5; i += 1) await port.pause(1, new AbortController().signal);
    assert.equal(finder.waiting, 0);
    const aborted = new AbortController();
    aborted.abort();
    await port.pause(60_000, aborted.signal);
    assert.equal(finder.waiting, 0);
  });

  it('is woken by news, and goes with a word', async () => {
    const finder = new PeerFinder(options);
    const gossip = new FakeGossip();
    finder.use(gossip, { start: () => gossip.calls.push('look'), stop: () => gossip.calls.push('look no more') });
    const woken = finder.news(new AbortController().signal);
    finder.changed();
    await woken;
    assert.equal(finder.waiting, 0);
    await finder.leave(10);
    await finder.stop();
    assert.deepEqual(gossip.calls, ['look', 'look no more', 'leave', 'look no more', 'stop']);
    assert.equal(finder.view(), null);
  });
});
