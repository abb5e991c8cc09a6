/** [F13] Two proven tenants and a caller of none, with the same subjects and producers: nobody is given anything of another, on any way in or out. */

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { SPACE_END } from '../../src/base/subject-space.ts';
import { encodeResumeToken } from '../../src/grpc/resume-token.ts';
import { PostgresServer } from '../servers/postgres.ts';
import { BrokerProcess, startBroker } from '../support/broker.ts';
import type { CallError } from '../support/client.ts';
import { Cluster, type ClusterNode } from '../support/cluster.ts';
import { succeeded } from '../support/commands.ts';
import type { ConsumeStream } from '../support/consume-stream.ts';
import { accessFlags, Party, type PartyName } from '../support/parties.ts';
import { temporaryFolder } from '../support/temporary.ts';
import { until } from '../support/until.ts';
import { encodePublish, Writer } from '../support/wire.ts';
import { Metrics } from './flow-rig.ts';

const NAMES: readonly PartyName[] = ['acme', 'globex', 'plain'];
const FORGED = `acme${String.fromCharCode(SPACE_END)}orders`;
const FROM_FIRST = { earliest: true } as const;

const reasonOf = (call: Promise<unknown>): Promise<string | null> =>
  call.then(
    () => 'answered',
    (error: CallError) => error.reason,
  );

/** What somebody who subscribes in every way was sent, and each body begins with the name of whoever sent it. */
class Listener {
  readonly party: Party;
  readonly got: string[] = [];
  readonly streams: ConsumeStream[] = [];

  constructor(party: Party) {
    this.party = party;
  }

  async begin(): Promise<void> {
    const starts = [{ at: 'new' }, { at: 'earliest' }, { at: 'id', id: 1 }, { at: 'time', ms: 0 }] as const;
    const live = starts.map(
      (start) =>
        new Promise<void>((resolve) => {
          this.party.client.subscribe('orders', start, {
            onLive: resolve,
            onMessage: ({ subject, body }) => this.got.push(`${subject} ${body}`),
          });
        }),
    );
    const subjects = [[{ subject: 'orders', ...FROM_FIRST }], [{ subject: '>', ...FROM_FIRST }], [{ subject: '*.eu' }]];
    this.streams.push(...(await Promise.all(subjects.map((some) => this.party.consume(some)))));
    await Promise.all(live);
  }

  /** Of the consume streams, in the same form. */
  get consumed(): string[] {
    return this.streams.flatMap(({ bodies }) =>
      [...bodies].flatMap(([subject, some]) => some.map((body) => `${subject} ${body}`)),
    );
  }

  /** Positions and tokens name subjects too. */
  check(): void {
    const { name } = this.party;
    const wrong = [...this.got, ...this.consumed].filter(
      (text) => !/^orders(\.eu)? /.test(text) || !text.includes(name),
    );
    assert.deepEqual(wrong, [], name);
    for (const { positions, violations, resumeToken } of this.streams) {
      assert.deepEqual(violations, []);
      for (const subject of positions.keys()) assert.match(subject, /^orders(\.eu)?$/);
      assert.equal(resumeToken.includes(SPACE_END), false);
    }
  }
}

/** All ways in and out; the parties listen at `out` and send at `at`. */
async function keptApart(t: TestContext, at: string, out: string): Promise<void> {
  const senders = NAMES.map((name) => new Party(name, at));
  const listeners = NAMES.map((name) => new Listener(new Party(name, out)));
  t.after(() => {
    for (const party of [...senders, ...listeners.map(({ party: one }) => one)]) party[Symbol.dispose]();
  });
  await Promise.all(listeners.map((listener) => listener.begin()));
  await Promise.all(
    senders.map(async (party) => {
      const body = Buffer.from(party.name);
      const producer = { subject: 'orders', body, producerId: 'p', sequence: 1 };
      // Ids begin at 1 for each, and a producer of one name has its own sequences, also one that is as long as can be.
      assert.equal(await party.client.publish({ subject: 'orders', body }), 1);
      assert.deepEqual([await party.client.publish(producer), await party.client.publish(producer)], [2, 2]);
      assert.equal(await party.client.publish({ ...producer, producerId: 'p'.repeat(64) }), 3);
      const stream = await party.produce('q');
      stream.send({ subject: 'orders', sequence: 1, bodies: [party.name, party.name] });
      stream.send({ subject: 'orders.eu', sequence: 2, bodies: [party.name] });
      assert.deepEqual(await stream.outcomes(1, 2), ['4..5', '1..1']);
      assert.equal(await party.client.incIdx('orders'), 6);
      const { subject, body: found } = await party.client.fetch('orders', 4);
      assert.equal(`${subject} ${found}`, `orders ${party.name}`);
      assert.equal(await party.client.broadcast({ subject: 'orders', body }), true);
      assert.equal(await party.head('orders'), 6);
    }),
  );
  // Five messages on each of four subscriptions, which the broadcast reaches as well; on the streams five, six and one.
  await until(
    () => listeners.every(({ got, consumed }) => got.length >= 24 && consumed.length >= 12),
    () => JSON.stringify(listeners.map(({ got, consumed }) => [got.length, consumed.length])),
  );
  await Promise.all(listeners.flatMap(({ streams }) => streams.map((stream) => stream.nextHeartbeat())));
  for (const listener of listeners) {
    listener.check();
    assert.deepEqual([listener.got.length, listener.consumed.length], [24, 12], listener.party.name);
  }
  const [acme, globex] = listeners as [Listener, Listener, Listener];
  assert.deepEqual(await acme.party.listed(), ['acme/orders', 'acme/orders.eu']);
  assert.deepEqual([...new Set(await globex.party.subscriptions())], ['globex/orders', 'globex/orders.eu']);
  assert.deepEqual(await acme.party.connections(), ['acme']);
  // The token of another tenant is taken for positions in the own space.
  const { resumeToken } = acme.streams[1] as ConsumeStream;
  const resumed = await globex.party.consume([{ subject: '>', ...FROM_FIRST }], { resumeToken });
  await globex.party.client.publish({ subject: 'orders', body: Buffer.from('globex') });
  await resumed.until(() => resumed.messages > 0);
  assert.deepEqual([...resumed.bodies.values()].flat(), ['globex']);
}

/** Whatever a client names, it names it in its own space. */
async function hostile(party: Party): Promise<void> {
  const { client } = party;
  const body = Buffer.from('x');
  const CONTROL = 'SUBJECT_CONTROL_CHARACTER';
  assert.equal(await reasonOf(client.publish({ subject: FORGED, body })), CONTROL);
  assert.equal(await reasonOf(client.broadcast({ subject: FORGED, body })), CONTROL);
  assert.equal(await reasonOf(client.fetch(FORGED, 1)), CONTROL);
  assert.equal(await reasonOf(client.incIdx(FORGED)), CONTROL);
  assert.equal(await reasonOf(party.head(FORGED)), CONTROL);
  assert.equal(await reasonOf(party.trim(FORGED, 2)), CONTROL);
  const refused = new Promise<string | null | undefined>((resolve) =>
    client.subscribe(
      FORGED,
      { at: 'earliest' },
      { onMessage: () => resolve('a message'), onEnd: (error) => resolve(error?.reason) },
    ),
  );
  assert.equal(await refused, CONTROL);
  for (const subject of [
    FORGED,
    `acme${String.fromCharCode(SPACE_END)}>`,
    `*${String.fromCharCode(SPACE_END)}orders`,
  ]) {
    assert.equal((await party.consume([{ subject, ...FROM_FIRST }])).status?.reason, CONTROL, subject);
  }
  // The last of two subjects counts: it is the one that is checked.
  const twice = Buffer.concat([
    encodePublish({ subject: 'orders', body }),
    new Writer().bytes(1, Buffer.from(FORGED)).finish(),
  ]);
  assert.equal(await reasonOf(client.call('Publish', twice)), CONTROL);
  // An overlong 0x1F, and one in percent: text like any other.
  assert.equal(await reasonOf(client.fetch(Buffer.from('acme\xc0\x9forders', 'latin1'), 1)), 'SUBJECT_NOT_UTF8');
  assert.equal(await reasonOf(client.fetch('acme%1Forders', 1)), 'ID_NOT_FOUND');
  const producerId = `acme${String.fromCharCode(SPACE_END)}p`;
  assert.equal(
    await reasonOf(client.publish({ subject: 'orders', body, producerId, sequence: 1 })),
    'PRODUCER_INVALID',
  );
  assert.equal((await party.produce(producerId)).status?.reason, 'PRODUCER_INVALID');
  const stream = await party.produce('');
  stream.send({ subject: FORGED, sequence: 1, bodies: ['x'] });
  assert.deepEqual(await stream.outcomes(1), [CONTROL]);
  // Its checksum is no secret.
  const longest = 'x'.repeat(255 - (party.tenant === '' ? 0 : party.tenant.length + 1));
  const forge = (name: string) =>
    encodeResumeToken({ patterns: new Set(['>']), next: new Map([[name, 1]]), times: new Map() });
  for (const name of [FORGED, ...(party.tenant === '' ? [] : [`${longest}x`])]) {
    const { status } = await party.consume([{ subject: '>' }], { resumeToken: forge(name) });
    assert.equal(status?.reason, 'RESUME_TOKEN_INVALID', name);
  }
  assert.equal(await client.publish({ subject: longest, body }), 1);
  assert.equal(await reasonOf(client.publish({ subject: `${longest}x`, body })), 'SUBJECT_TOO_LONG');
  assert.equal((await party.consume([{ subject: `${longest}x` }])).status?.reason, 'SUBJECT_TOO_LONG');
}

async function operated(at: string): Promise<void> {
  using operator = new Party('operator', at);
  using acme = new Party('acme', at);
  using globex = new Party('globex', at);
  const all = await operator.listed('', 'orders');
  assert.deepEqual(all, ['acme/orders', 'acme/orders.eu', 'globex/orders', 'globex/orders.eu', 'orders', 'orders.eu']);
  assert.deepEqual(await operator.listed('acme', 'orders.'), ['acme/orders.eu']);
  assert.deepEqual(await operator.listed('default', 'orders'), ['orders', 'orders.eu']);
  assert.equal(await reasonOf(acme.listed('globex')), 'PERMISSION_DENIED');
  assert.equal(await reasonOf(acme.trim('orders', 3, 'globex')), 'PERMISSION_DENIED');
  assert.equal(await operator.trim('orders', 3, 'acme'), 3);
  assert.equal(await reasonOf(acme.client.fetch('orders', 2)), 'ID_TRIMMED');
  assert.equal(`${(await globex.client.fetch('orders', 2)).body}`, 'globex');
}

/** What is stored is there, each for its own. */
async function stillThere(at: string): Promise<void> {
  for (const name of NAMES) {
    using party = new Party(name, at);
    assert.equal(`${(await party.client.fetch('orders', 3)).body}`, name);
    const known = await party.listed(name === 'plain' ? 'default' : '', 'orders');
    assert.deepEqual(
      known,
      ['orders', 'orders.eu'].map((subject) => (party.tenant === '' ? subject : `${party.tenant}/${subject}`)),
    );
  }
}

test('embedded: tenants are kept apart, also from whoever forges; after a kill, a backup and a recovery as well', {
  timeout: 240_000,
}, async (t) => {
  const folder = temporaryFolder(t);
  const flags = ['--shards', '2', ...accessFlags(folder)];
  const broker = await startBroker({ flags });
  t.after(() => broker.dispose());
  await keptApart(t, broker.address, broker.address);
  for (const name of NAMES) {
    using party = new Party(name, broker.address);
    await hostile(party);
  }
  await operated(broker.address);
  await broker.restart();
  await stillThere(broker.address);
  await broker.stop();
  assert.equal((await succeeded(['verify', '--data-dir', broker.dataDir, '--quiet'])).subject, undefined);
  const [to, dataDir] = [join(folder, 'backup'), join(folder, 'restored')];
  await succeeded(['backup', '--data-dir', broker.dataDir, '--to', to]);
  await succeeded(['restore', '--from', to, '--data-dir', dataDir, '--yes']);
  const restored = await BrokerProcess.create({ flags, dataDir });
  t.after(() => restored.dispose());
  await restored.restart();
  await stillThere(restored.address);
  await restored.stop();
  await succeeded(['cluster', 'recover', '--data-dir', dataDir, '--discard-state', '--yes']);
  await restored.restart();
  await stillThere(restored.address);
  await restored.stop();
  const server = await PostgresServer.start();
  t.after(() => server.remove());
  const store = server.brokerFlags();
  const copied = await succeeded([
    'store',
    'copy',
    '--from',
    'embedded',
    '--to',
    'postgres',
    '--data-dir',
    dataDir,
    ...store.slice(2),
  ]);
  assert.equal(copied.differing_subjects, 0);
  await restored.restart({ flags: [...flags, ...store] });
  await stillThere(restored.address);
});

test('three nodes on one database: a tenant has what it publishes on another node, and nothing of another tenant', {
  timeout: 240_000,
}, async (t) => {
  const server = await PostgresServer.start();
  t.after(() => server.remove());
  const env = { NODE_OPTIONS: `--import ${new URL('../support/proven-tenants.ts', import.meta.url)}` };
  await using cluster = await Cluster.start({ nodes: 3, storeFlags: server.brokerFlags(), env });
  // A broadcast is for nodes that have met.
  const haveMet = async ({ broker }: ClusterNode): Promise<boolean> => {
    const metrics = await Metrics.of(broker);
    return metrics.sum('broker_peers_open') + metrics.sum('broker_peers_heard') === 4;
  };
  await until(
    async () => (await Promise.all(cluster.nodes.map(haveMet))).every(Boolean),
    () => cluster.nodes.map(({ broker }) => broker.logs).join('\n'),
  );
  const [first, , last] = cluster.addresses as [string, string, string];
  await keptApart(t, first, last);
  await operated(first);
});
