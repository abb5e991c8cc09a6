/** Which database the tests, the demo and the measurements use where the environment names one. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { type TestContext, test } from 'node:test';
import { chooseCassandra, choosePostgres } from '../servers/chosen-server.ts';

/** Variables of this process while the test runs. */
function given(t: TestContext, variables: Readonly<Record<string, string>>): void {
  const names = ['POSTGRES_URL', 'CASSANDRA_CONTACT_POINTS', 'CASSANDRA_DATACENTER', 'CASSANDRA_USERNAME'];
  const before = [...names, 'CASSANDRA_PASSWORD'].map((name) => [name, process.env[name]] as const);
  t.after(() => {
    for (const [name, value] of before) {
      if (value === undefined) delete process.env[name];
      else process.env[name] = value;
    }
  });
  for (const [name] of before) delete process.env[name];
  Object.assign(process.env, variables);
}

test('POSTGRES_URL: nothing is started, and brokers get the URL as it is', async (t) => {
  given(t, { POSTGRES_URL: 'postgres://me:secret@db.test/messages' });
  const server = await choosePostgres();
  assert.equal(server.isGiven, true);
  assert.deepEqual(server.flags('place'), [
    ...['--store', 'postgres', '--postgres-url', 'postgres://me:secret@db.test/messages'],
    ...['--postgres-schema', 'place'],
  ]);
  await server.remove();
});

test('CASSANDRA_CONTACT_POINTS without a login', async (t) => {
  given(t, { CASSANDRA_CONTACT_POINTS: 'c1.test,c2.test:9043' });
  const server = await chooseCassandra();
  assert.deepEqual([server.isGiven, server.datacenter, server.credentials], [true, 'datacenter1', null]);
  assert.deepEqual(server.flags('place'), [
    ...['--store', 'cassandra', '--cassandra-contact-points', 'c1.test,c2.test:9043'],
    ...['--cassandra-datacenter', 'datacenter1', '--cassandra-keyspace', 'place'],
  ]);
  await server.remove();
});

test('CASSANDRA_USERNAME and CASSANDRA_PASSWORD: brokers find the password in a file that nobody else can read, and that goes', async (t) => {
  const login = { CASSANDRA_USERNAME: 'me', CASSANDRA_PASSWORD: 'secret' };
  given(t, { CASSANDRA_CONTACT_POINTS: 'c.test', CASSANDRA_DATACENTER: 'dc7', ...login });
  const server = await chooseCassandra();
  assert.deepEqual([server.datacenter, server.credentials], ['dc7', { username: 'me', password: 'secret' }]);
  for (const flags of [server.flags('place'), server.access('127.0.0.1:1')]) {
    assert.ok(!flags.includes('secret'), 'every user of the machine sees flags');
    const of = (name: string): string => flags[flags.indexOf(name) + 1] ?? '';
    assert.equal(of('--cassandra-username'), 'me');
    const file = of('--cassandra-password-file');
    assert.equal(readFileSync(file, 'utf8'), 'secret');
    assert.equal(statSync(file).mode & 0o777, 0o600);
  }
  const file = server.access().at(-1) as string;
  await server.remove();
  assert.ok(!existsSync(file));
});

for (const half of ['CASSANDRA_USERNAME', 'CASSANDRA_PASSWORD']) {
  test(`${half} alone is a mistake`, async (t) => {
    given(t, { CASSANDRA_CONTACT_POINTS: 'c.test', [half]: 'x' });
    await assert.rejects(chooseCassandra(), /one is set without the other/);
  });
}
