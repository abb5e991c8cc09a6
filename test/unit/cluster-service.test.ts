/** The service of the members, against a Raft thread that says what the test wants, and a leader that is another service. */
import assert from 'node:assert/strict';
import { describe, it, type TestContext, test } from 'node:test';
import { Metadata, type ServiceError, status } from '@grpc/grpc-js';
import { BrokerError } from '../../src/base/errors.ts';
import { callPeer } from '../../src/grpc/cluster-client.ts';
import { readDetails } from '../../src/grpc/error-details.ts';
import { ClusterService as Methods } from '../../src/grpc/gen/broker/v1/cluster.ts';
import { askSeed } from '../../src/workers/membership/ask-seed.ts';
import { ClusterService, type ClusterServiceOptions } from '../../src/workers/membership/cluster-service.ts';
import { clusterWarnings, tolerated, toleratedNow } from '../../src/workers/membership/cluster-warnings.ts';
import { handOver } from '../../src/workers/membership/hand-over.ts';
import { isProven, joinProof } from '../../src/workers/membership/join-proof.ts';
import { LeaderWatch } from '../../src/workers/membership/leader-watch.ts';
import type { ClusterView, MemberChange, MemberChangeResult, MemberView } from '../../src/workers/messages.ts';
import { startServer } from './grpc-rig.ts';

const NO_PROOF = Buffer.alloc(0);
const HERE = { isForwarded: false, deadlineMs: Number.POSITIVE_INFINITY };
const PASSED_ON = { ...HERE, isForwarded: true };
const DONE: MemberChangeResult = { reason: null, message: '' };

function instanceOf(node: string): string {
  return Buffer.from(node.padEnd(16, '.')).toString('hex');
}

function memberView(node: string, rest: Partial<MemberView> = {}): MemberView {
  return {
    node,
    instance: instanceOf(node),
    raft: `${node}:12000`,
    grpc: `${node}:8081`,
    clockOffsetMs: null,
    protocol: 1,
    isVoter: true,
    isLeader: false,
    match: -1,
    isActive: false,
    openAllotments: 0,
    ...rest,
  };
}

/** A Raft thread as the service sees it. */
class FakeRaft {
  view: ClusterView | null;
  readonly changes: MemberChange[] = [];
  answer: (change: MemberChange) => MemberChangeResult = () => DONE;

  constructor(node: string, leader: string, members: readonly MemberView[]) {
    this.view = { node, leader, term: 7, lastIndex: 100, committed: 99, applied: 98, members };
  }

  async cluster(): Promise<ClusterView | null> {
    return this.view;
  }

  async change(change: MemberChange): Promise<MemberChangeResult> {
    this.changes.push(change);
    return this.answer(change);
  }

  async status() {
    const levels = { snapshotIndex: 1, subjects: 0, producers: 0, logTime: 0 };
    return { term: 1, applied: 5, lastIndex: 6, openAllotments: 2, ...levels };
  }
}

const THREE = [
  memberView('n1', { isLeader: true, match: 100, isActive: true }),
  memberView('n2', { match: 100, isActive: true, openAllotments: 3 }),
  memberView('n3', { match: 40, isActive: false }),
];
const UNHEARD = THREE.map((member) => ({ ...member, match: -1, isActive: false }));

function serviceOf(raft: FakeRaft, rest: Partial<ClusterServiceOptions> = {}): ClusterService {
  return new ClusterService({
    raft,
    isClustered: true,
    clusterId: 'c1',
    clusterName: 'broker',
    nodeId: raft.view?.node ?? '',
    instanceId: instanceOf('n1'),
    grpcAddress: () => 'n1:8081',
    votersWanted: 3,
    call: () => Promise.reject(new Error('nobody may be called')),
    gossip: () => null,
    keys: () => [],
    joinsNeedProof: false,
    changeKeys: () => Promise.reject(new BrokerError('GOSSIP_OFF')),
    now: Date.now,
    ...rest,
  });
}

function wire(node: string, rest: object = {}) {
  const empty = { role: '', isLeader: false, matchIndex: 0, isActive: false, protocol: 0, openAllotments: 0 };
  const addresses = { raftAddress: `${node}:12000`, grpcAddress: `${node}:8081` };
  return { nodeId: node, instanceId: instanceOf(node), ...addresses, ...empty, ...rest };
}

/** The reason of what a promise rejects with. */
async function reasonOf(work: Promise<unknown>): Promise<string> {
  const error = await work.then(
    () => assert.fail('it was done'),
    (why: unknown) => why,
  );
  if (error instanceof BrokerError) return error.reason;
  return readDetails((error as ServiceError).metadata).reason ?? String(error);
}

describe('The members', () => {
  it('are what the leader knows, with what it means for the next failure', async () => {
    const found = await serviceOf(new FakeRaft('n1', 'n1', THREE)).members(HERE);
    const { members, warnings, ...rest } = found;
    assert.deepEqual(rest, {
      ...{ clusterId: 'c1', cluster: 'broker', nodeId: 'n1', leader: 'n1', term: 7, lastIndex: 100, committed: 99 },
      ...{ applied: 98, votersWanted: 3, tolerates: 1, toleratesNow: 0, seen: [] },
    });
    assert.deepEqual(
      members.map(({ nodeId, role, isLeader, matchIndex, isActive }) => [nodeId, role, isLeader, matchIndex, isActive]),
      [
        ['n1', 'voter', true, 100, true],
        ['n2', 'voter', false, 100, true],
        ['n3', 'voter', false, 40, false],
      ],
    );
    assert.equal(warnings.length, 1);
    assert.match(
      warnings[0] as string,
      new RegExp(`voter n3 .* 2 of 3 .* the loss of none.*remove n3/${instanceOf('n3')}\``),
    );
  });

  it('are the same on a node that does not lead: it asks the one that does, once', async () => {
    const leader = serviceOf(new FakeRaft('n1', 'n1', THREE));
    const asked: string[] = [];
    const call = (async (address, _method, _request, options) => {
      asked.push(address);
      assert.equal(options.isForwarded, true);
      assert.ok(options.deadlineMs <= Date.now() + 1_000);
      return await leader.members(PASSED_ON);
    }) as typeof callPeer;
    const found = await serviceOf(new FakeRaft('n2', 'n1', UNHEARD), { call }).members(HERE);
    const there = await leader.members(HERE);
    assert.deepEqual(found, { ...there, nodeId: 'n2' });
    assert.deepEqual(asked, ['n1:8081']);
  });

  it('say what nobody could tell when the leader does not answer, or none is known', async () => {
    const lost = (() => Promise.reject(serviceError(status.UNAVAILABLE))) as typeof callPeer;
    for (const leader of ['n1', '']) {
      const found = await serviceOf(new FakeRaft('n2', leader, UNHEARD), { call: lost }).members(HERE);
      assert.equal(found.toleratesNow, -1);
      assert.ok(found.members.every(({ matchIndex, isActive }) => matchIndex === -1 && !isActive));
      assert.equal(found.warnings.length, leader === '' ? 1 : 0, found.warnings.join());
    }
  });

  it('are asked of a leader that refuses this node ever more seldom, down to every two minutes, and of the next one at once', async () => {
    for (const code of [status.PERMISSION_DENIED, status.UNAUTHENTICATED]) {
      let nowMs = 1_000_000;
      let asked = 0;
      let isRefused = true;
      const follower = new FakeRaft('n2', 'n1', UNHEARD);
      const service = serviceOf(follower, {
        now: () => nowMs,
        call: async () => {
          asked += 1;
          if (isRefused) throw serviceError(code);
          return (await serviceOf(new FakeRaft('n1', 'n1', THREE)).members(PASSED_ON)) as never;
        },
      });
      /** Seconds until the leader is asked again, by somebody who wants to know every two seconds. */
      const secondsUntilAsked = async (): Promise<number> => {
        const before = asked;
        for (let seconds = 0; seconds <= 600; seconds += 2) {
          await service.members(HERE);
          if (asked > before) return seconds;
          nowMs += 2_000;
        }
        return Number.POSITIVE_INFINITY;
      };
      const waits: number[] = [];
      for (let time = 0; time < 7; time++) waits.push(await secondsUntilAsked());
      assert.deepEqual(waits, [0, 10, 20, 40, 80, 120, 120], `${code}`);
      // The clock was set back.
      nowMs = 0;
      assert.equal(await secondsUntilAsked(), 0);
      follower.view = { ...(follower.view as ClusterView), leader: 'n3' };
      assert.deepEqual([await secondsUntilAsked(), await secondsUntilAsked()], [0, 10]);
      isRefused = false;
      follower.view = { ...follower.view, leader: 'n1' };
      assert.deepEqual([await secondsUntilAsked(), await secondsUntilAsked()], [0, 0]);
    }
  });

  it('of a node without peers are itself', async () => {
    const service = serviceOf(new FakeRaft('n1', '', []), { isClustered: false });
    const { members, leader, tolerates, warnings, applied } = await service.members(HERE);
    assert.deepEqual([leader, tolerates, applied, warnings], ['n1', 0, 5, []]);
    assert.deepEqual(
      members.map(({ nodeId, isLeader, grpcAddress, openAllotments }) => [
        nodeId,
        isLeader,
        grpcAddress,
        openAllotments,
      ]),
      [['n1', true, 'n1:8081', 2]],
    );
    assert.deepEqual(await service.standing(), { role: 'alone', leader: 'n1' });
    assert.equal(await reasonOf(service.promote({ nodeId: 'n2' }, HERE)), 'NOT_CLUSTERED');
  });

  it('have a standing, which status shows', async () => {
    const members = [...THREE.slice(0, 2), memberView('n3', { isVoter: false })];
    for (const [node, leader, role] of [
      ['n1', 'n1', 'leader'],
      ['n2', 'n1', 'voter'],
      ['n3', 'n1', 'learner'],
      ['n9', '', 'learner'],
    ] as const) {
      assert.deepEqual(await serviceOf(new FakeRaft(node, leader, members)).standing(), { role, leader });
    }
  });
});

function serviceError(code: number, reason: BrokerError | null = null): ServiceError {
  const metadata = new Metadata();
  return Object.assign(new Error(reason?.message ?? 'lost'), { code, details: 'lost', metadata });
}

describe('A change of the members', () => {
  it('is made where the leader is, and answered with the members behind it', async () => {
    const raft = new FakeRaft('n1', 'n1', THREE);
    const service = serviceOf(raft);
    const { leader, members } = await service.add({ member: wire('n4') }, HERE);
    assert.equal(leader, 'n1');
    assert.equal(members.length, 3);
    await service.join({ clusterId: 'c1', member: wire('n4', { protocol: 5 }), proof: NO_PROOF }, PASSED_ON);
    await service.remove({ nodeId: 'n3', instanceId: instanceOf('n3'), force: true }, HERE);
    await service.promote({ nodeId: 'n4' }, HERE);
    await service.transferLeader({ nodeId: '' }, HERE);
    const n4 = { node: 'n4', instance: instanceOf('n4'), raft: 'n4:12000', grpc: 'n4:8081' };
    assert.deepEqual(raft.changes, [
      { kind: 'add', member: { ...n4, protocol: 1 } },
      { kind: 'add', member: { ...n4, protocol: 5 } },
      { kind: 'remove', node: 'n3', instance: instanceOf('n3'), force: true },
      { kind: 'promote', node: 'n4' },
      { kind: 'transfer', node: '' },
    ]);
  });

  it('is refused in the words of the Raft thread', async () => {
    const raft = new FakeRaft('n1', 'n1', THREE);
    for (const reason of ['NODE_ID_TAKEN', 'QUORUM_AT_RISK', 'MEMBER_UNKNOWN', 'CHANGE_PENDING'] as const) {
      raft.answer = () => ({ reason, message: 'two of three' });
      await assert.rejects(serviceOf(raft).remove({ nodeId: 'n3', instanceId: '', force: false }, HERE), (error) => {
        assert.ok(error instanceof BrokerError);
        assert.equal(error.reason, reason);
        assert.match(error.message, /\(two of three\)/);
        return true;
      });
    }
  });

  it('is passed on once, over a real connection, and the leader’s refusals come back as they are', async (t) => {
    const raft = new FakeRaft('n1', 'n1', THREE);
    const server = await startServer(t, { cluster: serviceOf(raft) });
    const members = UNHEARD.map((one) => (one.node === 'n1' ? { ...one, grpc: server.address } : one));
    const follower = serviceOf(new FakeRaft('n2', 'n1', members), { call: callPeer });
    await follower.promote({ nodeId: 'n3' }, HERE);
    assert.deepEqual(raft.changes, [{ kind: 'promote', node: 'n3' }]);
    raft.answer = () => ({ reason: 'QUORUM_AT_RISK', message: '1 of 3' });
    await assert.rejects(follower.remove({ nodeId: 'n3', instanceId: '', force: false }, HERE), (error) => {
      const { code, details, metadata } = error as ServiceError;
      assert.equal(code, status.FAILED_PRECONDITION);
      assert.match(details, /\(1 of 3\); /);
      assert.deepEqual(readDetails(metadata), { reason: 'QUORUM_AT_RISK', outcome: 'none', retryAfterMs: null });
      return true;
    });

    // Two nodes that take each other for the leader.
    let again = 0;
    const passOn = (() => {
      again += 1;
      return Promise.reject(serviceError(status.UNAVAILABLE));
    }) as typeof callPeer;
    const other = serviceOf(new FakeRaft('n1', 'n2', UNHEARD), { call: passOn });
    const circle = await startServer(t, { cluster: other });
    const astray = UNHEARD.map((one) => (one.node === 'n1' ? { ...one, grpc: circle.address } : one));
    const lost = serviceOf(new FakeRaft('n2', 'n1', astray), { call: callPeer });
    assert.equal(await reasonOf(lost.promote({ nodeId: 'n3' }, HERE)), 'NOT_LEADER');
    assert.equal(again, 0);
  });

  it('is NOT_LEADER, with a time to wait, where no leader is known or it does not answer', async () => {
    const gone = (() => Promise.reject(serviceError(status.UNAVAILABLE))) as typeof callPeer;
    for (const leader of ['', 'n1']) {
      const service = serviceOf(new FakeRaft('n2', leader, UNHEARD), { call: gone });
      assert.equal(await reasonOf(service.promote({ nodeId: 'n3' }, HERE)), 'NOT_LEADER');
    }
    assert.ok((new BrokerError('NOT_LEADER').row.retryAfterMs ?? 0) > 0);
  });

  it('goes to the next leader when this node loses the lead with the change in its hand', async () => {
    const raft = new FakeRaft('n1', 'n1', THREE);
    raft.answer = () => {
      raft.view = { ...(raft.view as ClusterView), leader: 'n2' };
      return { reason: 'NOT_LEADER', message: '' };
    };
    const called: string[] = [];
    const call = (async (address: string) => {
      called.push(address);
      return { members: [], leader: 'n2' };
    }) as unknown as typeof callPeer;
    assert.equal((await serviceOf(raft, { call }).promote({ nodeId: 'n3' }, HERE)).leader, 'n2');
    assert.deepEqual(called, ['n2:8081']);
  });

  it('is checked before anybody is asked, each rule with words of its own', async () => {
    const raft = new FakeRaft('n1', 'n1', THREE);
    const service = serviceOf(raft);
    for (const [member, why] of [
      [undefined, /member is missing/],
      [wire('n4', { nodeId: '' }), /node_id is missing/],
      [wire('n4', { nodeId: 'a b' }), /node_id must be 1 to 63/],
      [wire('n4', { instanceId: '' }), /instance_id is missing/],
      [wire('n4', { instanceId: 'ABC' }), /instance_id must be 32 digits/],
      [wire('n4', { raftAddress: '' }), /raft_address must be HOST:PORT/],
      [wire('n4', { raftAddress: 'n4:0' }), /raft_address must be HOST:PORT/],
      [wire('n4', { raftAddress: 'n4:65536' }), /raft_address must be HOST:PORT/],
      [wire('n4', { grpcAddress: '0.0.0.0:1' }), /grpc_address must be one that others can connect to/],
      [wire('n4', { grpcAddress: '[::]:1' }), /grpc_address must be one that others can connect to/],
      [wire('n4', { grpcAddress: 'n4:12000' }), /are the same/],
    ] as const) {
      await assert.rejects(service.add({ member }, HERE), (error) => {
        assert.ok(error instanceof BrokerError && error.reason === 'MEMBER_INVALID');
        assert.match(error.message, why);
        return true;
      });
    }
    assert.equal(
      await reasonOf(service.join({ clusterId: 'c2', member: wire('n4'), proof: NO_PROOF }, HERE)),
      'CLUSTER_MISMATCH',
    );
    // [F12] With a certificate it is the node that it asks for, unless it passes the call on.
    const join = { clusterId: 'c1', member: wire('n4'), proof: NO_PROOF };
    assert.equal(await reasonOf(service.join(join, { ...HERE, certified: 'n5' })), 'NODE_UNPROVEN');
    assert.equal(
      await reasonOf(service.remove({ nodeId: 'n3/x', instanceId: '', force: false }, HERE)),
      'MEMBER_INVALID',
    );
    assert.equal(
      await reasonOf(service.remove({ nodeId: 'n3', instanceId: 'x', force: false }, HERE)),
      'MEMBER_INVALID',
    );
    assert.equal(await reasonOf(service.transferLeader({ nodeId: ' ' }, HERE)), 'MEMBER_INVALID');
    assert.deepEqual(raft.changes, []);
  });
});

describe('[R23] A node that asks a seed to be taken in', () => {
  const member = { node: 'n4', instance: instanceOf('n4'), raft: 'n4:12000', grpc: 'n4:8081', protocol: 1 };
  const never = new AbortController().signal;

  async function ask(t: TestContext, raft: FakeRaft, clusterId = 'c1') {
    const { address } = await startServer(t, { cluster: serviceOf(raft) });
    return await askSeed(address, clusterId, member, never, null);
  }

  it('shows that it has a gossip key where the cluster has one, and is refused for good without', async (t) => {
    const [older, newer, other] = [1, 2, 3].map((byte) => Buffer.alloc(32, byte)) as [Buffer, Buffer, Buffer];
    const raft = new FakeRaft('n1', 'n1', THREE);
    const { address } = await startServer(t, { cluster: serviceOf(raft, { keys: () => [newer, older] }) });
    for (const key of [null, other]) {
      const answer = await askSeed(address, 'c1', member, never, key);
      assert.ok(answer.kind === 'refused' && answer.reason === 'JOIN_UNPROVEN', answer.kind);
      assert.match(answer.message, /gossip\.key/);
    }
    assert.equal(raft.changes.length, 0);
    for (const key of [newer, older]) assert.equal((await askSeed(address, 'c1', member, never, key)).kind, 'joined');

    const proof = joinProof(newer, 'c1', member);
    assert.equal(isProven([older, newer], 'c1', member, proof), true);
    for (const [id, changed] of [
      ['c2', member],
      ['c1', { ...member, raft: 'n4:12001' }],
      ['c1', { ...member, node: 'n', instance: `4${member.instance}` }],
      ['c1', { ...member, node: 'n5' }],
    ] as const) {
      assert.equal(isProven([older, newer], id, changed, proof), false);
    }
    assert.equal(isProven([], 'c1', member, proof), false);
    assert.equal(isProven([newer], 'c1', member, proof.subarray(1)), false);
  });

  it('is refused without a key or certificate where strangers are kept out, whoever passes it on', async (t) => {
    const raft = new FakeRaft('n1', 'n1', THREE);
    const service = serviceOf(raft, { joinsNeedProof: true });
    const { address } = await startServer(t, { cluster: service });
    for (const key of [null, Buffer.alloc(32, 1)]) {
      const answer = await askSeed(address, 'c1', member, never, key);
      assert.ok(answer.kind === 'refused' && answer.reason === 'JOIN_UNPROVEN', answer.kind);
      assert.match(answer.message, /gossip\.key.*tls\.ca/);
    }
    const join = { clusterId: 'c1', member: wire('n4'), proof: NO_PROOF };
    assert.equal(await reasonOf(service.join(join, PASSED_ON)), 'JOIN_UNPROVEN');
    assert.deepEqual(raft.changes, []);
    await service.join(join, { ...HERE, certified: 'n4' });
    assert.equal(raft.changes.length, 1);
  });

  it('of another cluster hears the id of this one only with a certificate or the key', async () => {
    const key = Buffer.alloc(32, 1);
    const service = serviceOf(new FakeRaft('n1', 'n1', THREE), { clusterId: 'ours', keys: () => [key] });
    const told = async (proof: Uint8Array, certified: string | null): Promise<string> => {
      const join = { clusterId: 'c2', member: wire('n4', { protocol: 1 }), proof: Buffer.from(proof) };
      const error = await service.join(join, { ...HERE, certified }).catch((why: unknown) => why);
      assert.ok(error instanceof BrokerError && error.reason === 'CLUSTER_MISMATCH');
      return error.message;
    };
    assert.doesNotMatch(await told(NO_PROOF, null), /ours/);
    assert.match(await told(joinProof(key, 'c2', member), null), /c2, this one of ours/);
    assert.match(await told(NO_PROOF, 'n4'), /c2, this one of ours/);
  });

  it('hears the members', async (t) => {
    const answer = await ask(t, new FakeRaft('n1', 'n1', THREE));
    assert.ok(answer.kind === 'joined');
    const { node, instance, raft, grpc, protocol } = THREE[2] as MemberView;
    assert.deepEqual(answer.members[2], { node, instance, raft, grpc, protocol });
  });

  it('asks again while the leader’s own address is not in the log: nobody could dial it', async (t) => {
    const silent = THREE.map((one) => (one.isLeader ? { ...one, raft: '' } : one));
    const answer = await ask(t, new FakeRaft('n1', 'n1', silent));
    assert.ok(answer.kind === 'unavailable', answer.kind);
    assert.match(answer.message, /n1, has not told the log its Raft address yet/);
  });

  it('hears a refusal for good, or one that may pass', async (t) => {
    const raft = new FakeRaft('n1', 'n1', THREE);
    raft.answer = () => ({ reason: 'NODE_ID_TAKEN', message: 'n4 is another instance' });
    const taken = await ask(t, raft);
    assert.ok(taken.kind === 'refused' && taken.reason === 'NODE_ID_TAKEN', taken.kind);
    assert.match(taken.message, /broker cluster remove/);
    raft.answer = () => ({ reason: 'CHANGE_PENDING', message: '' });
    assert.equal((await ask(t, raft)).kind, 'unavailable');
    assert.equal((await ask(t, new FakeRaft('n1', '', THREE))).kind, 'unavailable');
    assert.equal((await ask(t, raft, 'c2')).kind, 'refused');
    assert.equal((await askSeed('127.0.0.1:1', 'c1', member, never, null)).kind, 'unavailable');
  });

  it('stops asking when it is told to, also while it looks how to ask', { timeout: 5_000 }, async (t) => {
    const raft = new FakeRaft('n1', 'n1', THREE);
    raft.change = () => new Promise(() => undefined);
    const { address } = await startServer(t, { cluster: serviceOf(raft) });
    const stop = new AbortController();
    const answer = askSeed(address, 'c1', member, stop.signal, null);
    stop.abort();
    assert.equal((await answer).kind, 'unavailable');
  });

  it('asks members itself, whatever proxy is for the way out of its network', async (t) => {
    const { address } = await startServer(t, { cluster: serviceOf(new FakeRaft('n1', 'n1', THREE)) });
    for (const [name, value] of Object.entries({ http_proxy: 'http://127.0.0.1:1', no_proxy: '', no_grpc_proxy: '' })) {
      const before = process.env[name];
      process.env[name] = value;
      t.after(() => {
        if (before === undefined) delete process.env[name];
        else process.env[name] = before;
      });
    }
    const answer = await askSeed(address, 'c1', member, never, null);
    assert.equal(answer.kind, 'joined', 'message' in answer ? answer.message : '');
  });
});

test('a malformed request of the cluster service never reaches the node', async (t) => {
  const server = await startServer(t, { cluster: serviceOf(new FakeRaft('n1', 'n1', THREE)) });
  const garbage = { ...Methods.join, requestSerialize: () => Buffer.from([0xff, 0xff]) };
  const options = { deadlineMs: Date.now() + 5_000, isForwarded: false };
  const asked = callPeer(server.address, garbage, { clusterId: '', member: undefined }, options);
  assert.equal(await reasonOf(asked), 'MALFORMED_MESSAGE');
});

test('quorum arithmetic: what 1 to 7 voters tolerate, and what is left of it when some are silent', () => {
  assert.deepEqual([0, 1, 2, 3, 4, 5, 6, 7].map(tolerated), [0, 0, 0, 1, 1, 2, 2, 3]);
  assert.equal(toleratedNow(3, 3), 1);
  assert.equal(toleratedNow(3, 2), 0);
  assert.equal(toleratedNow(5, 4), 1);
  assert.equal(toleratedNow(4, 4), 1);
  assert.equal(toleratedNow(3, 1), 0);
});

describe('Warnings name what helps', () => {
  const facts = { leader: 'n1', lastIndex: 50_000, votersWanted: 3, isHeard: true };
  const voter = (node: string) => wire(node, { role: 'voter', isActive: true, matchIndex: 50_000 });
  const learner = (node: string, rest: object = {}) =>
    wire(node, { role: 'learner', isActive: true, matchIndex: 50_000, ...rest });
  const three = [voter('a'), voter('b'), voter('c')];

  for (const [name, members, expected] of [
    ['all is well', three, []],
    ['all is well, with a learner beside', [...three, learner('d')], []],
    [
      'even',
      [...three, voter('d')],
      [/4 voters survive the loss of one, as 3 would: start another node, or .*`broker cluster remove NODE`/],
    ],
    ['two of three', [voter('a'), voter('b')], [/2 voters survive the loss of none, as 1 would/]],
    ['one of three', [voter('a')], [/1 of 3 voters \(raft.voters\) are there: start more nodes with --join/]],
    [
      'a learner that is behind',
      [...three, learner('d', { matchIndex: 1 })],
      [/learner d is 49999 log entries behind/],
    ],
    [
      'a learner that is silent',
      [...three, learner('d', { isActive: false })],
      [/learner d is not heard of: .*remove d\//],
    ],
    ['a learner with a seat', [voter('a'), learner('d')], [/learner d waits to become a voter/, /1 of 3 voters/]],
  ] as const) {
    it(name, () => {
      const warnings = clusterWarnings({ ...facts, members });
      assert.equal(warnings.length, expected.length, warnings.join('\n'));
      for (const [i, pattern] of expected.entries()) assert.match(warnings[i] as string, pattern);
    });
  }
});

test('a node that leads hands over before it stops, if there is anybody, and waits no longer than it may', async () => {
  const leading = new FakeRaft('n1', 'n1', THREE);
  assert.deepEqual(await handOver(leading, 1_000), DONE);
  assert.deepEqual(leading.changes, [{ kind: 'transfer', node: '' }]);
  for (const raft of [
    new FakeRaft('n2', 'n1', THREE),
    new FakeRaft('n1', 'n1', [THREE[0] as MemberView, memberView('n4', { isVoter: false })]),
  ]) {
    assert.equal(await handOver(raft, 1_000), null);
    assert.deepEqual(raft.changes, []);
  }
  const stuck = new FakeRaft('n1', 'n1', THREE);
  stuck.change = () => new Promise(() => undefined);
  assert.equal(await handOver(stuck, 1), null);
});

test('without a leader calls are refused after one election timeout, and taken as soon as there is one again', (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const told: string[] = [];
  const watch = new LeaderWatch({
    patienceMs: 1_000,
    onLost: () => told.push('lost'),
    onFound: () => told.push('found'),
  });
  watch.changed('');
  t.mock.timers.tick(5_000);
  watch.changed('n1');
  watch.start();
  watch.changed('');
  t.mock.timers.tick(999);
  watch.changed('n2');
  t.mock.timers.tick(5_000);
  assert.deepEqual(told, []);
  watch.changed('');
  watch.changed('');
  t.mock.timers.tick(1_000);
  assert.deepEqual(told, ['lost']);
  assert.equal(watch.isLost, true);
  watch.changed('');
  t.mock.timers.tick(5_000);
  watch.changed('n3');
  assert.deepEqual(told, ['lost', 'found']);
  watch.changed('');
  watch.stop();
  t.mock.timers.tick(5_000);
  assert.deepEqual(told, ['lost', 'found']);
});
