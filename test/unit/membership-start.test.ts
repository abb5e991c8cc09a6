/** How a node finds out whether it begins a cluster, joins one, or goes on where it was. */
import assert from 'node:assert/strict';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it, type TestContext, test } from 'node:test';
import { armFailpoints } from '../../src/base/failpoint.ts';
import { Prng } from '../../src/base/prng.ts';
import type { Member } from '../../src/replica/types.ts';
import type { BirthRow } from '../../src/storage/birth.ts';
import { readClusterMarker, writeClusterMarker } from '../../src/storage/cluster-marker.ts';
import { openDataDirectory } from '../../src/storage/data-directory.ts';
import { NodeDisk } from '../../src/storage/disk.ts';
import { StartError } from '../../src/storage/start-error.ts';
import { type EnterOptions, enterCluster, settleMembership } from '../../src/workers/membership/enter-cluster.ts';
import { type JoinAnswer, type JoinPort, joinCluster, WaitingNews } from '../../src/workers/membership/join-cluster.ts';
import { decideStart, type StartFacts } from '../../src/workers/membership/start-decision.ts';
import { temporaryFolder } from '../support/temporary.ts';

const OWN = 'own-cluster';
const OTHER: BirthRow = { clusterId: 'other-cluster', name: 'broker', settings: '' };
const MINE: BirthRow = { clusterId: OWN, name: 'broker', settings: '' };
const INSTANCE = 'a'.repeat(32);

const FRESH: StartFacts = {
  marker: null,
  hasLog: false,
  clusterId: OWN,
  clusterName: 'broker',
  nodeId: 'n1',
  instanceId: INSTANCE,
  bootstrap: false,
  hasSeeds: false,
  expect: 'off',
  row: null,
};
const BOOTSTRAP = { bootstrap: true };
const JOIN = { hasSeeds: true };
const BOTH = { ...BOOTSTRAP, ...JOIN };
const LOG = { hasLog: true, row: MINE };
const SHORT = { expect: 'short' } as const;
const MET = { expect: 'met' } as const;

/** What the node has, and what is asked of it -> what it does. */
const TABLE: readonly [string, Partial<StartFacts>, string][] = [
  ['nothing, no row, no flags: alone, as ever', {}, 'first alone'],
  ['nothing, no row, --bootstrap', BOOTSTRAP, 'first clustered'],
  ['nothing, no row, --join', JOIN, 'wait for birth'],
  ['nothing, no row, both', BOTH, 'first clustered'],
  ['nothing, no row, too few brokers are seen', SHORT, 'wait for brokers'],
  ['nothing, no row, too few brokers are seen, seeds', { ...SHORT, ...JOIN }, 'wait for brokers'],
  ['nothing, no row, enough brokers are seen', MET, 'first clustered'],
  ['nothing, no row, enough brokers are seen, seeds', { ...MET, ...JOIN }, 'first clustered'],
  ['nothing, the row of others, enough brokers are seen', { ...MET, row: OTHER }, 'join other-cluster'],
  ['nothing, the row of others, too few brokers are seen', { ...SHORT, row: OTHER }, 'join other-cluster'],
  ['killed before the claim, too few brokers are seen now', { ...SHORT, marker: 'first' }, 'first clustered'],
  [
    'killed before the claim, another was faster, brokers',
    { ...MET, marker: 'first', row: OTHER },
    'join other-cluster',
  ],
  ['killed behind the claim, too few brokers are seen now', { ...SHORT, row: MINE }, 'first clustered'],
  ['killed while joining, brokers are expected', { ...SHORT, marker: 'joining', row: OTHER }, 'join other-cluster'],
  [
    'killed while joining, brokers are seen, no row: it began nothing before either',
    { ...MET, marker: 'joining' },
    'wait for birth',
  ],
  ['state of a member, brokers are expected', { ...LOG, ...MET, marker: 'member' }, 'serve clustered (says so)'],
  ['[G3] a member whose log is gone, brokers are seen', { ...MET, marker: 'member' }, 'refuse RAFT_LOG_LOST'],
  ['nothing, the row of others, no flags', { row: OTHER }, 'refuse CLUSTER_EXISTS'],
  ['nothing, the row of others, --bootstrap', { ...BOOTSTRAP, row: OTHER }, 'refuse CLUSTER_EXISTS'],
  ['nothing, the row of others, --join', { ...JOIN, row: OTHER }, 'join other-cluster'],
  ['nothing, the row of others, both', { ...BOTH, row: OTHER }, 'join other-cluster'],
  [
    'nothing, the row of a cluster of another name, --join',
    { ...JOIN, row: { ...OTHER, name: 'x' } },
    'refuse JOIN_REFUSED',
  ],
  ['killed behind the claim, alone', { row: MINE }, 'first alone'],
  ['killed behind the claim, --bootstrap', { ...BOOTSTRAP, row: MINE }, 'first clustered'],
  ['killed behind the claim, --join', { ...JOIN, row: MINE }, 'first clustered'],
  ['killed before the claim, --bootstrap', { ...BOOTSTRAP, marker: 'first' }, 'first clustered'],
  ['killed before the claim, flags dropped', { marker: 'first' }, 'first clustered'],
  [
    'killed before the claim, and another was faster',
    { ...BOOTSTRAP, marker: 'first', row: OTHER },
    'refuse CLUSTER_EXISTS',
  ],
  ['killed before the claim, another was faster, both', { ...BOTH, marker: 'first', row: OTHER }, 'join other-cluster'],
  ['killed while joining', { ...JOIN, marker: 'joining', row: OTHER }, 'join other-cluster'],
  [
    'killed while joining, its id is the cluster’s by now',
    { ...JOIN, marker: 'joining', row: MINE },
    'join own-cluster',
  ],
  ['the same, and --bootstrap', { ...BOTH, marker: 'joining', row: MINE }, 'join own-cluster'],
  [
    'killed while joining, --bootstrap instead of --join',
    { ...BOOTSTRAP, marker: 'joining', row: MINE },
    'refuse JOIN_REFUSED',
  ],
  ['killed while joining, no flags', { marker: 'joining', row: MINE }, 'refuse JOIN_REFUSED'],
  ['killed while joining, the database is gone', { ...JOIN, marker: 'joining' }, 'wait for birth'],
  ['taken in, no log yet', { ...JOIN, marker: 'joined', row: MINE }, 'joined'],
  ['taken in, a part of the log', { marker: 'joined', ...LOG }, 'joined'],
  ['taken in, nobody to ask any more', { marker: 'joined', row: MINE }, 'joined'],
  ['state, alone', LOG, 'serve alone'],
  ['state, alone so far, --bootstrap', { ...LOG, ...BOOTSTRAP }, 'serve clustered (says so)'],
  ['state, alone so far, --join', { ...LOG, ...JOIN }, 'serve clustered (says so)'],
  ['state of a member, no flags', { ...LOG, marker: 'member' }, 'serve clustered'],
  ['state of a member, both flags', { ...LOG, ...BOTH, marker: 'member' }, 'serve clustered (says so)'],
  ['state of the first', { ...LOG, marker: 'first' }, 'serve clustered'],
  ['a member whose log is gone', { marker: 'member', row: MINE }, 'refuse RAFT_LOG_LOST'],
  ['the same, --join', { ...JOIN, marker: 'member', row: MINE }, 'refuse RAFT_LOG_LOST'],
];

describe('What a node does at its start', () => {
  for (const [name, facts, expected] of TABLE) {
    it(`${name}: ${expected}`, () => {
      const decision = decideStart({ ...FRESH, ...facts });
      const words: string[] = [decision.kind];
      if (decision.kind === 'refuse') words.push(decision.code);
      if (decision.kind === 'join') words.push(decision.clusterId);
      if (decision.kind === 'wait') words.push('for', decision.for);
      if ('isClustered' in decision) words.push(decision.isClustered ? 'clustered' : 'alone');
      if (decision.kind === 'serve' && decision.note !== '') words.push('(says so)');
      assert.equal(words.join(' '), expected);
    });
  }

  it('refuses with the flag and the command that help', () => {
    const exists = decideStart({ ...FRESH, row: OTHER });
    assert.ok(exists.kind === 'refuse');
    assert.match(exists.why, /belongs to cluster other-cluster .*--join HOST:PORT.*`broker cluster recover`/);
    const lost = decideStart({ ...FRESH, marker: 'member' });
    assert.ok(lost.kind === 'refuse');
    assert.match(lost.why, new RegExp(`\`broker cluster remove n1/${INSTANCE}\``));
  });
});

/** A database of several nodes, and what was asked of its cluster. */
class World {
  row: BirthRow | null = null;
  /** Another node's claim comes first. */
  rival: BirthRow | null = null;
  readonly asked: Member[] = [];
  readonly told: string[] = [];
  readonly answers: JoinAnswer[] = [];
  /** Called at every wait. */
  onPause: (count: number) => void = () => undefined;
  #pauses = 0;

  readonly port: JoinPort = {
    ask: async (_seed, _clusterId, member) => {
      this.asked.push(member);
      return this.answers.shift() ?? { kind: 'joined', members: [SEED, member] };
    },
    pause: async () => {
      this.#pauses += 1;
      this.onPause(this.#pauses);
    },
    tell: (message) => this.told.push(message),
  };

  readonly database: EnterOptions['database'] = {
    place: 'schema broker',
    findBirth: async () => this.row,
    claimBirth: async (cluster) => {
      this.row ??= this.rival ?? { ...cluster, settings: '' };
      return this.row;
    },
    check: (clusterId, row) => assert.equal(row?.clusterId, clusterId),
  };
}

/** Every step of one node lets any other go first. */
class RacedWorld extends World {
  births = 0;
  readonly #prng: Prng;

  constructor(prng: Prng) {
    super();
    this.#prng = prng;
    this.database.findBirth = async () => {
      await this.turn();
      return this.row;
    };
    this.database.claimBirth = async (cluster) => {
      await this.turn();
      if (this.row === null) this.births += 1;
      this.row ??= { ...cluster, settings: '' };
      await this.turn();
      return this.row;
    };
    this.port.pause = () => this.turn();
  }

  async turn(): Promise<void> {
    for (let i = this.#prng.nextBelow(8); i > 0; i -= 1) await null;
  }
}

const SEED: Member = { node: 'n0', instance: 'b'.repeat(32), raft: 'n0:12000', grpc: 'n0:8081', protocol: 1 };
const disk = new NodeDisk();

interface StartOptions extends Partial<Pick<EnterOptions, 'bootstrap' | 'advertised' | 'isMarkedStore'>> {
  readonly seeds?: readonly string[];
  readonly expect?: number;
  /** Brokers that gossip sees. */
  readonly seen?: () => number;
  readonly signal?: AbortSignal;
}

/** One start of the node whose data directory that is, as far as its Raft thread. */
async function start(world: World, path: string, options: StartOptions) {
  const directory = openDataDirectory(disk, path, { clusterName: 'broker', nodeId: 'n1', now: 0 });
  try {
    return await enterCluster({
      disk,
      directory,
      database: world.database,
      bootstrap: false,
      advertised: { raft: 'n1:12000', grpc: 'n1:8081' },
      isMarkedStore: false,
      port: world.port,
      signal: new AbortController().signal,
      ...options,
      seeds: {
        hasSource: (options.seeds ?? []).length > 0,
        list: () => options.seeds ?? [],
        isTold: () => true,
        expect: options.expect ?? 0,
        seen: options.seen ?? (() => 1),
      },
    });
  } finally {
    directory.close();
  }
}

function makeLog(path: string): void {
  mkdirSync(join(path, 'raft'));
  writeFileSync(join(path, 'raft', '1.log'), 'x');
}

function folder(t: TestContext): string {
  return join(temporaryFolder(t), 'data');
}

describe('A node that begins', () => {
  it('claims the database under the id of its data directory; only with --bootstrap has it a Raft port, also later', async (t) => {
    for (const bootstrap of [false, true]) {
      const [world, path] = [new World(), folder(t)];
      const begun = await start(world, path, { bootstrap });
      assert.equal(begun.isClustered, bootstrap);
      assert.equal(begun.joining, null);
      assert.equal(world.row?.clusterId, begun.node.clusterId);
      makeLog(path);
      settleMembership(disk, path, []);
      assert.equal(readClusterMarker(disk, path)?.state ?? null, bootstrap ? 'member' : null);
      assert.equal((await start(world, path, {})).isClustered, bootstrap);
    }
  });

  it('joins instead if another node was faster and it was told whom; else it is refused', async (t) => {
    const rival = { ...OTHER };
    const [world, path] = [new World(), folder(t)];
    world.rival = rival;
    const joined = await start(world, path, { bootstrap: true, seeds: ['n0:8081'] });
    assert.equal(joined.node.clusterId, rival.clusterId);
    assert.deepEqual(
      joined.joining?.map(({ node }) => node),
      ['n0', 'n1'],
    );

    const second = new World();
    second.rival = rival;
    await assert.rejects(start(second, folder(t), { bootstrap: true }), { code: 'CLUSTER_EXISTS' });
  });

  it('is refused where nobody could be told its addresses, before anything is claimed', async (t) => {
    const world = new World();
    await assert.rejects(start(world, folder(t), { bootstrap: true, advertised: null }), { code: 'ADVERTISE_NEEDED' });
    assert.equal(world.row, null);
    assert.equal((await start(world, folder(t), { advertised: null })).isClustered, false);
  });

  it('does not take an empty database for its own when its messages are in one', async (t) => {
    for (const options of [{}, { bootstrap: true }, { seeds: ['n0:8081'] }]) {
      const world = new World();
      const started = start(world, folder(t), { ...options, isMarkedStore: true });
      await assert.rejects(started, { code: 'STORE_UNUSABLE' });
      assert.equal(world.row, null);
    }
  });
});

describe('[G3] Nodes that expect each other', () => {
  it('wait until so many are seen, and then one of them begins and the others join it', async (t) => {
    const [world, path] = [new World(), folder(t)];
    let seen = 1;
    world.onPause = (count) => {
      if (count === 12) seen = 3;
      assert.equal(world.row, null, 'it began alone');
    };
    const begun = await start(world, path, { expect: 3, seen: () => seen });
    assert.deepEqual([begun.isClustered, world.row?.clusterId], [true, begun.node.clusterId]);
    assert.equal(world.told.filter((line) => line.includes('as many brokers as --bootstrap-expect says')).length, 2);

    const second = await start(world, folder(t), { expect: 3, seen: () => seen, seeds: ['n0:8081'] });
    assert.equal(second.node.clusterId, begun.node.clusterId);
    assert.equal(second.joining?.length, 2);
  });

  it('begin one cluster in 200 raced first starts, in any order, with crashes and whatever each of them sees', async (t) => {
    t.after(() => armFailpoints(''));
    const prng = new Prng(20_260);
    const sites = ['disk.rename', 'disk.renamed', 'cluster-file.write', 'node-file.write'];
    for (let round = 0; round < 200; round += 1) {
      const world = new RacedWorld(prng);
      const nodes = ['n1', 'n2', 'n3'].map(() => folder(t));
      const starts = nodes.map(async (path) => {
        for (;;) {
          await world.turn();
          const hit =
            prng.nextBelow(4) === 0 ? `${sites[prng.nextBelow(sites.length)]}=throw@${1 + prng.nextBelow(2)}` : '';
          armFailpoints(hit);
          try {
            const options = { expect: 3, seen: () => 1 + prng.nextBelow(4), seeds: ['n0:8081'] };
            return await start(world, path, options);
          } catch (error) {
            // A crash: it comes again.
            assert.ok(error instanceof Error);
          } finally {
            armFailpoints('');
          }
        }
      });
      const entered = await Promise.all(starts);
      assert.deepEqual(
        [...new Set(entered.map(({ node }) => node.clusterId))],
        [world.row?.clusterId],
        `round ${round}`,
      );
      assert.equal(entered.filter(({ joining }) => joining === null).length, 1, `round ${round}`);
      assert.equal(world.births, 1);
    }
  });
});

describe('A node that joins', () => {
  const seeds = ['n0:8081'];

  it('waits for the cluster, then for a member that answers, and says so once in a while', async (t) => {
    const [world, path] = [new World(), folder(t)];
    world.answers.push(
      { kind: 'unavailable', message: 'no connection' },
      { kind: 'unavailable', message: 'no leader' },
    );
    world.onPause = (count) => {
      if (count === 25) world.row = OTHER;
    };
    const joined = await start(world, path, { seeds });
    assert.equal(joined.node.clusterId, OTHER.clusterId);
    assert.equal(joined.isClustered, true);
    assert.equal(world.told.filter((line) => line.includes('cluster in the database')).length, 2);
    assert.equal(world.told.filter((line) => line.includes('take this node in')).length, 1);
    assert.equal(world.asked.length, 3);
    const { node, raft, grpc } = world.asked[0] as Member;
    assert.deepEqual({ node, raft, grpc }, { node: 'n1', raft: 'n1:12000', grpc: 'n1:8081' });
  });

  it('asks nobody if its settings are not those of the cluster', async (t) => {
    const [world, path] = [new World(), folder(t)];
    world.row = OTHER;
    const refusal = new StartError('STORE_UNUSABLE', 'another data centre');
    world.database.check = () => {
      throw refusal;
    };
    await assert.rejects(start(world, path, { seeds }), refusal);
    assert.deepEqual(world.asked, []);
    assert.equal(readClusterMarker(disk, path), null);
  });

  it('stops waiting when it is told to', async (t) => {
    for (const row of [null, OTHER]) {
      const world = new World();
      world.row = row;
      const stop = new AbortController();
      const reason = new Error('told to stop');
      if (row !== null) world.answers.push({ kind: 'unavailable', message: '' });
      world.onPause = () => stop.abort(reason);
      await assert.rejects(start(world, folder(t), { seeds, signal: stop.signal }), reason);
    }
  });

  it('[R23] is refused for good, with the reason and who it is, where the cluster says no', async (t) => {
    const [world, path] = [new World(), folder(t)];
    world.row = OTHER;
    const message = 'remove that one with `broker cluster remove n1/cccc`';
    world.answers.push({ kind: 'refused', reason: 'NODE_ID_TAKEN', message });
    await assert.rejects(start(world, path, { seeds }), (error) => {
      assert.ok(error instanceof StartError);
      assert.equal(error.code, 'JOIN_REFUSED');
      assert.match(error.message, /NODE_ID_TAKEN: remove that one .*\(this node is n1\/[0-9a-f]{32}\)/);
      return true;
    });
    assert.equal(readClusterMarker(disk, path)?.state, 'joining');
  });

  it('asks nobody again once it is taken in, and keeps whom it was told of until its log has it', async (t) => {
    const [world, path] = [new World(), folder(t)];
    world.row = OTHER;
    const { joining } = await start(world, path, { seeds });
    assert.deepEqual((await start(world, path, {})).joining, joining);
    assert.equal(world.asked.length, 1);
    makeLog(path);
    assert.deepEqual((await start(world, path, {})).joining, joining);
    settleMembership(disk, path, []);
    const later = await start(world, path, {});
    assert.deepEqual({ joining: later.joining, isClustered: later.isClustered }, { joining: null, isClustered: true });
    assert.equal(world.asked.length, 1);
  });

  it('[R24] whose log was put aside asks the members that its directory knows, with no other seed', async (t) => {
    const [world, path] = [new World(), folder(t)];
    world.row = OTHER;
    await start(world, path, { seeds: ['elsewhere:1'] });
    makeLog(path);
    settleMembership(disk, path, [SEED]);
    assert.deepEqual(readClusterMarker(disk, path), { state: 'member', members: [SEED] });
    // As mend-log.ts leaves it.
    writeClusterMarker(disk, path, { state: 'joining', members: [SEED] });
    rmSync(join(path, 'raft'), { recursive: true });
    world.asked.length = 0;
    assert.notEqual((await start(world, path, {})).joining, null);
    assert.equal(world.asked.length, 1);
  });

  it('does the same again after a crash between any two of its steps, and never begins a cluster', async (t) => {
    t.after(() => armFailpoints(''));
    const sites = [
      'disk.rename',
      'disk.renamed',
      'cluster-file.write',
      'node-file.write',
      'data-directory.node-written',
    ];
    let crashes = 0;
    for (const site of sites) {
      for (let hit = 1; hit <= 4; hit += 1) {
        const [world, path] = [new World(), folder(t)];
        world.row = { ...OTHER };
        armFailpoints(`${site}=throw@${hit}`);
        const cut = await start(world, path, { seeds, bootstrap: true }).then(
          () => false,
          () => true,
        );
        armFailpoints('');
        if (cut) crashes += 1;
        const again = await start(world, path, { seeds, bootstrap: true });
        assert.equal(again.node.clusterId, OTHER.clusterId, `${site} ${hit}`);
        assert.notEqual(again.joining, null, `${site} ${hit}`);
        assert.equal(new Set(world.asked.map(({ instance }) => instance)).size, 1);
        assert.deepEqual(world.row, OTHER);
      }
    }
    assert.ok(crashes >= 8, `only ${crashes} starts were cut off`);
  });
});

test('[G2] a refusal of another cluster ends the start where the configuration names the seed, and not where gossip has met it', async () => {
  const member = { ...SEED, node: 'n1', grpc: 'n1:1' };
  const common = { clusterId: 'x', member, signal: new AbortController().signal };
  const answers = (asked: string[]): JoinPort => ({
    ask: async (seed) => {
      asked.push(seed);
      if (asked.length === 3) return { kind: 'joined', members: [member] };
      return { kind: 'refused', reason: 'CLUSTER_MISMATCH', message: 'of another cluster' };
    },
    pause: async () => undefined,
    tell: () => undefined,
  });
  const asked: string[] = [];
  await joinCluster(answers(asked), { seeds: () => ['met:1'], isTold: () => false, ...common });
  assert.equal(asked.length, 3);
  const told = joinCluster(answers([]), { seeds: () => ['told:1'], isTold: () => true, ...common });
  await assert.rejects(told, { code: 'JOIN_REFUSED' });
});

test('[G2] a refusal for good by all whom gossip has met ends the start in the third round in a row, that of some of them never', async () => {
  const member = { ...SEED, node: 'n1', grpc: 'n1:1' };
  const rounds = async (answersOf: (seed: string, round: number) => JoinAnswer): Promise<number> => {
    let round = 1;
    const stop = new AbortController();
    const port: JoinPort = {
      ask: async (seed) => answersOf(seed, round),
      pause: async () => {
        round += 1;
        if (round > 50) stop.abort(new Error('waits'));
      },
      tell: () => undefined,
    };
    const seeds = (): string[] => ['met:1', 'met:2'];
    const joining = joinCluster(port, { seeds, isTold: () => false, clusterId: 'x', member, signal: stop.signal });
    const code = await joining.then(
      () => 'joined',
      (error: Error & { code?: string }) => error.code ?? error.message,
    );
    if (code === 'JOIN_REFUSED') return round;
    assert.equal(code, 'waits');
    return Number.POSITIVE_INFINITY;
  };
  const no: JoinAnswer = { kind: 'refused', reason: 'MEMBER_UNKNOWN', message: 'it was removed' };
  const other: JoinAnswer = { kind: 'refused', reason: 'CLUSTER_MISMATCH', message: 'of another cluster' };
  const busy: JoinAnswer = { kind: 'unavailable', message: 'no leader is known' };
  assert.equal(await rounds(() => no), 3);
  assert.equal(await rounds((seed) => (seed === 'met:1' ? no : busy)), Number.POSITIVE_INFINITY);
  assert.equal(await rounds((seed) => (seed === 'met:1' ? no : other)), Number.POSITIVE_INFINITY);
  // One round in which somebody may still say yes begins the count anew.
  assert.equal(await rounds((_, round) => (round === 2 ? busy : no)), 5);
});

test('a long wait is told less and less often, news of it within seconds, and what to look at from the second time on', async () => {
  const told: { readonly atS: number; readonly fields: Readonly<Record<string, string | number>> }[] = [];
  let nowMs = 0;
  const waiting = new WaitingNews({
    pause: async (ms) => {
      nowMs += ms;
    },
    tell: (_message, fields) => told.push({ atS: nowMs / 1000, fields }),
  });
  const { signal } = new AbortController();
  const waitUntil = async (endS: number, seen: number): Promise<void> => {
    while (nowMs < endS * 1000) await waiting.again('waiting', { seen }, 'the ports', signal);
  };
  await waitUntil(200, 1);
  assert.deepEqual(
    told.map(({ atS }) => atS),
    [0, 5, 15, 35, 75, 135, 195],
  );
  assert.deepEqual([told[0]?.fields, told[1]?.fields], [{ seen: 1 }, { seen: 1, check: 'the ports' }]);
  told.length = 0;
  await waitUntil(212, 2);
  assert.deepEqual(
    told.map(({ atS }) => atS),
    [200, 205],
  );
});

test('several seeds are asked in turn, and the node does not ask itself', async () => {
  const asked: string[] = [];
  const port: JoinPort = {
    ask: async (seed, _clusterId, member) => {
      asked.push(seed);
      return asked.length < 3 ? { kind: 'unavailable', message: '' } : { kind: 'joined', members: [member] };
    },
    pause: async () => undefined,
    tell: () => undefined,
  };
  const member = { ...SEED, node: 'n1', grpc: 'b:1' };
  const signal = new AbortController().signal;
  await joinCluster(port, { seeds: () => ['a:1', 'b:1', 'c:1'], clusterId: 'x', member, signal });
  assert.deepEqual(asked, ['a:1', 'c:1', 'a:1']);
});

test('a marker that cannot be read refuses the start', (t) => {
  const path = temporaryFolder(t);
  for (const text of [
    '',
    '{',
    '{"version":2,"state":"member","members":[]}',
    '{"version":1,"state":"x","members":[]}',
  ]) {
    writeFileSync(join(path, 'CLUSTER'), text);
    assert.throws(() => readClusterMarker(disk, path), { code: 'DATA_DIRECTORY_UNUSABLE' });
  }
  writeClusterMarker(disk, path, { state: 'joined', members: [SEED] });
  assert.deepEqual(readClusterMarker(disk, path), { state: 'joined', members: [SEED] });
});
