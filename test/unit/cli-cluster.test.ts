import assert from 'node:assert/strict';
import { test } from 'node:test';
import { broker, FakeBroker, INSTANCE, VIEW } from './cli-rig.ts';

test('cluster members shows what the leader knows, and its warnings beside the results', async () => {
  const { out, err, code } = await broker(['cluster', 'members']);
  assert.equal(code, 0);
  assert.equal(
    out,
    [
      'NODE  ROLE   LEADER  HEARD  BEHIND  OPEN  GRPC     RAFT      INSTANCE',
      `n1    voter  true    true        0     0  n1:8081  n1:12000  ${INSTANCE}`,
      `n2    voter  false   true       10     2  n2:8081  n2:12000  ${INSTANCE}`,
      `n3    voter  false   false     100     0  n3:8081  n3:12000  ${INSTANCE}`,
      '',
    ].join('\n'),
  );
  assert.equal(err, 'broker: voter n3 is not heard of\n');
  const json = (await broker(['cluster', 'members', '-o', 'json'])).out.split('\n');
  assert.equal(json.length, 4);
  assert.deepEqual(JSON.parse(json[2] as string).behind, 100);
});

test('cluster members shows what Raft and what gossip know side by side, whom only gossip has met, and why they differ', async () => {
  const fake = new FakeBroker();
  const seen = (nodeId: string, status: string, rest: object = {}) => ({
    ...{ nodeId, instanceId: INSTANCE, raftAddress: `${nodeId}:12000`, grpcAddress: `${nodeId}:8081`, status },
    ...{ gossipAddress: `${nodeId}:7946`, isMember: true, difference: '', ...rest },
  });
  fake.views = [
    {
      ...VIEW,
      warnings: [],
      seen: [
        seen('n1', 'alive'),
        seen('n2', 'failed', { difference: 'the leader hears it' }),
        seen('n3', '', { difference: 'not met' }),
        seen('n4', 'alive', { isMember: false, difference: 'it is about to ask' }),
      ],
    },
  ];
  const { out, err } = await broker(['cluster', 'members'], { fake });
  assert.equal(
    out,
    [
      'NODE  ROLE   LEADER  HEARD  GOSSIP  BEHIND  OPEN  GRPC     RAFT      INSTANCE',
      `n1    voter  true    true   alive   0       0     n1:8081  n1:12000  ${INSTANCE}`,
      `n2    voter  false   true   failed  10      2     n2:8081  n2:12000  ${INSTANCE}`,
      `n3    voter  false   false  -       100     0     n3:8081  n3:12000  ${INSTANCE}`,
      `n4    -      false   -      alive   -       -     n4:8081  n4:12000  ${INSTANCE}`,
      '',
    ].join('\n'),
  );
  assert.equal(err, 'broker: n2: the leader hears it\nbroker: n3: not met\nbroker: n4: it is about to ask\n');
  const rows = (await broker(['cluster', 'members', '-o', 'json'], { fake })).out.trim().split('\n');
  const { gossip, gossip_address, difference } = JSON.parse(rows[1] as string);
  assert.deepEqual(
    { gossip, gossip_address, difference },
    {
      gossip: 'failed',
      gossip_address: 'n2:7946',
      difference: 'the leader hears it',
    },
  );
});

test('what only the leader knows stays open where it did not say', async () => {
  const fake = new FakeBroker();
  const members = VIEW.members.map((one) => ({ ...one, matchIndex: -1, isActive: false }));
  fake.views = [{ ...VIEW, leader: '', toleratesNow: -1, members }];
  const [row] = (await broker(['cluster', 'members', '-o', 'json'], { fake })).out.split('\n');
  const { heard, behind } = JSON.parse(row as string);
  assert.deepEqual({ heard, behind }, { heard: null, behind: null });
  const status = JSON.parse((await broker(['cluster', 'status', '-o', 'json'], { fake })).out);
  assert.equal(status.leader, null);
  assert.equal(status.tolerates_now, null);
});

test('cluster status sums up', async () => {
  const status = JSON.parse((await broker(['cluster', 'status', '-o', 'json'])).out);
  const { leader, voters, learners, voters_wanted, tolerates, tolerates_now, warnings } = status;
  assert.deepEqual(
    { leader, voters, learners, voters_wanted, tolerates, tolerates_now, warnings },
    {
      leader: 'n1',
      voters: 3,
      learners: 0,
      voters_wanted: 3,
      tolerates: 1,
      tolerates_now: 0,
      warnings: 'voter n3 is not heard of',
    },
  );
});

for (const [argv, asked] of [
  [['promote', 'n3'], { promote: 'n3' }],
  [['transfer-leader'], { transfer: '' }],
  [['transfer-leader', 'n2'], { transfer: 'n2' }],
  [['remove', 'n3'], { remove: 'n3', instanceId: '', force: false }],
  [['remove', `n3/${INSTANCE}`, '--force'], { remove: 'n3', instanceId: INSTANCE, force: true }],
  [
    ['add', `n4/${INSTANCE}`, '--raft', 'n4:12000', '--grpc', '[::1]:8081'],
    { add: { nodeId: 'n4', instanceId: INSTANCE, raftAddress: 'n4:12000', grpcAddress: '[::1]:8081' } },
  ],
] as const) {
  test(`cluster ${argv.join(' ')} asks for that and shows the members behind it`, async () => {
    const { code, out, fake } = await broker(['cluster', ...argv]);
    assert.equal(code, 0);
    assert.deepEqual(fake.asked, [asked]);
    assert.match(out, /^NODE /);
  });
}

for (const [argv, why] of [
  [['remove', 'n3/abc'], /must be a node id, or node\/instance/],
  [['promote', `n3/${INSTANCE}`], /must be a node id, without an instance/],
  [['add', 'n4', '--raft', 'a:1', '--grpc', 'b:1'], /must be NODE\/INSTANCE/],
  [['add', `n4/${INSTANCE}`, '--raft', 'a', '--grpc', 'b:1'], /--raft a: must be HOST:PORT/],
  [['add', `n4/${INSTANCE}`, '--raft', 'a:1'], /--grpc/],
  [['leave', '--address', 'a:1,b:1'], /leave takes one address/],
] as const) {
  test(`cluster ${argv.join(' ')} is wrong usage`, async () => {
    const { code, err, fake } = await broker(['cluster', ...argv]);
    assert.equal(code, 2);
    assert.match(err, why);
    assert.deepEqual(fake.asked, []);
  });
}

test('cluster leave hands over the lead, waits until another node has it, and removes the instance that is there', async () => {
  const fake = new FakeBroker();
  const leading = { ...VIEW, leader: 'n2' };
  fake.views = [leading, leading, { ...leading, leader: '' }, VIEW];
  const { code, err } = await broker(['cluster', 'leave'], { fake });
  assert.equal(code, 0, err);
  assert.deepEqual(fake.asked, [{ transfer: '' }, { remove: 'n2', instanceId: INSTANCE, force: false }]);
  assert.match(err, /n2 is no member any more; stop its process/);
});

test('cluster leave of a node that does not lead, or is no member, transfers nothing', async () => {
  assert.deepEqual((await broker(['cluster', 'leave'])).fake.asked, [
    { remove: 'n2', instanceId: INSTANCE, force: false },
  ]);
  const fake = new FakeBroker();
  fake.views = [{ ...VIEW, nodeId: 'n9' }];
  const { code, err } = await broker(['cluster', 'leave'], { fake });
  assert.equal(code, 1);
  assert.match(err, /n9 is no member of the cluster any more/);
  assert.deepEqual(fake.asked, []);
});

test('cluster keys list shows fingerprints, and how many nodes have each key and encrypt with it', async () => {
  const { out, code } = await broker(['cluster', 'keys', 'list']);
  assert.equal(code, 0);
  assert.equal(
    out,
    [
      'KEY               NODES  PRIMARY_ON',
      '3f9a0011aabbccdd      3           3',
      '00ff0011aabbccdd      1           0',
      '',
    ].join('\n'),
  );
});

test('cluster keys install takes a key from standard input only, and says what is wrong with it', async () => {
  const key = Buffer.alloc(32, 7);
  const { code, fake } = await broker(['cluster', 'keys', 'install'], { input: `${key.toString('base64')}\n` });
  assert.equal(code, 0);
  assert.deepEqual(fake.asked, [{ keys: 'install', key: key.toString('hex') }]);
  const wrong = await broker(['cluster', 'keys', 'install'], { input: 'c2hvcnQ=' });
  assert.equal(wrong.code, 2);
  assert.match(wrong.err, /base64 of 16, 24 or 32 bytes/);
  assert.deepEqual(wrong.fake.asked, []);
});

test('cluster keys use and remove name an installed key, and fail if a node has not done it or not answered', async () => {
  const fake = new FakeBroker();
  fake.keys = { ...fake.keys, failures: [{ nodeId: 'n3', message: 'no such key' }] };
  const failed = await broker(['cluster', 'keys', 'use', '3f9a'], { fake });
  assert.equal(failed.code, 1);
  assert.match(failed.err, /n3: no such key\n.*not all nodes have done it/);
  fake.keys = { ...fake.keys, failures: [], answered: 2 };
  const late = await broker(['cluster', 'keys', 'remove', '00ff'], { fake });
  assert.equal(late.code, 1);
  assert.match(late.err, /answers came from 2 of 3 nodes/);
  assert.deepEqual(fake.asked, [{ keys: 'use' }, { keys: 'remove' }]);
  const wrong = await broker(['cluster', 'keys', 'use', 'XY'], { fake });
  assert.equal(wrong.code, 2);
});
