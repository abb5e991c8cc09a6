/** What a node with a damaged log is told to do when the others do not take it out. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { Server, ServerCredentials, status } from '@grpc/grpc-js';
import { ClusterService, MembersResponse } from '../../src/grpc/gen/broker/v1/cluster.ts';
import { CLEAR_TEXT } from '../../src/grpc/peer-credentials.ts';
import { mendAdvice } from '../../src/workers/membership/mend-advice.ts';
import { takeOutBy } from '../../src/workers/membership/mend-log.ts';

const NODE = { nodeId: 'n1', instanceId: 'a'.repeat(32), clusterId: 'mine', clusterName: 'broker' };

/** Asks a member that answers like this. */
async function ask(t: TestContext, answer: { code: status; details: string } | Partial<MembersResponse>) {
  const server = new Server();
  server.addService(
    { members: ClusterService.members },
    {
      members: (_: unknown, callback: (error: object | null, value?: object) => void) =>
        'code' in answer
          ? callback(answer)
          : callback(null, { ...MembersResponse.decode(new Uint8Array()), ...answer }),
    },
  );
  t.after(() => server.forceShutdown());
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
      error === null ? resolve(bound) : reject(error),
    ),
  );
  const node = { ...NODE } as Parameters<typeof takeOutBy>[1]['node'];
  const { signal } = new AbortController();
  return await takeOutBy(`127.0.0.1:${port}`, { node, security: CLEAR_TEXT, signal });
}

for (const [what, code, isRefusal] of [
  ['who shows no credentials', status.UNAUTHENTICATED, true],
  ['who may not', status.PERMISSION_DENIED, true],
  ['what has no majority', status.FAILED_PRECONDITION, false],
  ['whoever comes too early', status.UNAVAILABLE, false],
] as const) {
  test(`a member that refuses ${what} is ${isRefusal ? 'a matter for an operator' : 'asked again'}`, async (t) => {
    assert.deepEqual(await ask(t, { code, details: 'why' }), { words: 'why', isRefusal });
  });
}

test('a member of another cluster, or one that knows no leader, refuses nobody', async (t) => {
  assert.deepEqual(await ask(t, { clusterId: 'other' }), { words: 'it is of cluster other', isRefusal: false });
  const found = await ask(t, { clusterId: 'mine', toleratesNow: -1 });
  assert.match(found?.words ?? '', /no majority of voters without this node/);
});

test('the advice names what to look at first, then the safe command; what loses something is last, with its condition, or not there', () => {
  const refused = mendAdvice('n1/abc', { isRefusal: true });
  const steps = [
    'stopped',
    'token that has `admin`',
    'cluster status',
    'tolerates_now',
    'remove n1/abc',
    'of that leader',
    '--join',
  ];
  const places = steps.map((step) => refused.indexOf(step));
  assert.ok(
    places.every((place) => place >= 0),
    places.join(),
  );
  assert.deepEqual(
    places,
    places.toSorted((a, b) => a - b),
    refused,
  );
  assert.match(refused, /remove n1\/abc --address HOST:PORT` of that leader, without --force/);
  assert.doesNotMatch(refused, /recover/);

  const alone = mendAdvice('n1/abc', { isRefusal: false });
  assert.match(
    alone,
    /^Start the others.*Only if the logs of a majority are damaged or lost for ever.*docs\/backup\.md/,
  );
  assert.doesNotMatch(alone, /cluster recover|--force/);
});
