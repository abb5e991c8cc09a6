/** Most of a real cluster on PostgreSQL is lost: `broker cluster recover` makes the first node of a new one, and the others join that. */
import assert from 'node:assert/strict';
import { cpSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { type Client, type ClientError, connect } from '../../src/client/index.ts';
import { PostgresServer } from '../servers/postgres.ts';
import { BrokerProcess } from '../support/broker.ts';
import { refused, succeeded } from '../support/commands.ts';
import { freePorts } from '../support/ports.ts';
import { temporaryFolder } from '../support/temporary.ts';
import { until } from '../support/until.ts';

const GAP = 2 ** 20;
const PATIENCE_MS = 120_000;
const SUBJECTS = ['r.one', 'r.two'];

const server = await PostgresServer.start();
const flags = server.brokerFlags();
const nodes: Node[] = [];
after(async () => {
  await Promise.all(nodes.map((node) => node.dispose()));
  await server.remove();
});

class Node {
  readonly name: string;
  readonly process: BrokerProcess;
  readonly client: Client;
  readonly #flags: readonly string[];

  private constructor(name: string, process: BrokerProcess, own: readonly string[]) {
    this.name = name;
    this.process = process;
    this.#flags = own;
    this.client = connect(process.address, { timeoutMs: PATIENCE_MS });
  }

  static async create(name: string): Promise<Node> {
    const [port] = await freePorts(1);
    const own = [...flags, '--node-id', name, '--raft-listen', `127.0.0.1:${port}`, '--shards', '1'];
    const node = new Node(name, await BrokerProcess.create(), own);
    nodes.push(node);
    return node;
  }

  async start(...more: string[]): Promise<void> {
    await this.process.restart({ flags: [...this.#flags, ...more] });
  }

  /** Its data directory is lost; a new one joins. */
  async startWiped(seed: Node): Promise<void> {
    await this.process.kill();
    rmSync(this.process.dataDir, { recursive: true });
    await this.start('--join', seed.process.address);
  }

  get recover(): string[] {
    return ['cluster', 'recover', '--data-dir', this.process.dataDir, '--node-id', this.name, ...flags];
  }

  async dispose(): Promise<void> {
    await this.client.close().catch(() => undefined);
    await this.process.dispose();
  }
}

/** What has been acknowledged of each subject, ever. */
const acked = new Map(SUBJECTS.map((subject) => [subject, new Map<number, string>()]));
let published = 0;

async function publish(node: Node, subject: string): Promise<number> {
  published += 1;
  const text = `${published} by ${node.name}`;
  const id = await node.client.publish(subject, text);
  const before = acked.get(subject)?.get(id);
  assert.equal(before, undefined, `id ${id} of ${subject} is given again`);
  acked.get(subject)?.set(id, text);
  return id;
}

/** Publishes through every node until that fails. */
function load(among: readonly Node[]): Promise<void> {
  const lines = among.flatMap((node) =>
    SUBJECTS.map(async (subject) => {
      for (;;) await publish(node, subject).catch((error: ClientError) => Promise.reject(error));
    }),
  );
  return Promise.allSettled(lines).then((ends) => {
    for (const end of ends) if (end.status === 'rejected') assert.doesNotMatch(String(end.reason), /is given again/);
  });
}

function shown(node: Node, subject: string, id: number): Promise<string | null> {
  return node.client.fetch(subject, id).then(
    ({ text }) => text,
    (error: ClientError) => error.reason,
  );
}

/** Every message that was ever acknowledged, by fetches and by a subscription from the beginning, which tells of nothing lost. */
async function readAll(node: Node): Promise<void> {
  for (const [subject, messages] of acked) {
    const last = Math.max(...messages.keys());
    const received = new Map<number, string>();
    const signal = AbortSignal.timeout(PATIENCE_MS);
    for await (const { id, text } of node.client.subscribe(subject, { start: 'earliest', signal })) {
      received.set(id, text);
      if (id >= last) break;
    }
    for (const [id, text] of messages) assert.equal(received.get(id), text, `${subject} ${id} at ${node.name}`);
    for (const id of [...messages.keys()].slice(-20)) assert.equal(await shown(node, subject, id), messages.get(id));
  }
}

async function voters(node: Node, count: number): Promise<void> {
  await until(
    async () => {
      const found = await node.client.members({ timeoutMs: 2_000 }).catch(() => null);
      return found !== null && found.leader !== '' && found.toleratesNow === (count - 1) >> 1
        ? found.members.filter(({ role }) => role === 'voter').length === count
        : false;
    },
    () => node.process.logs,
  );
}

const largest = (subject: string): number => Math.max(...(acked.get(subject)?.keys() ?? []));

/** Ids of a recovered subject go on behind the gap, on every node, and so do those of subjects that nobody knew. */
async function checkIds(among: readonly Node[], heads: ReadonlyMap<string, number>, floor: number): Promise<void> {
  const [source] = among as [Node];
  for (const [subject, head] of heads) {
    assert.equal(await publish(source, subject), head + GAP + 1);
    for (const node of among) {
      assert.deepEqual(
        await Promise.all([head + 1, head + GAP].map((id) => shown(node, subject, id))),
        ['ID_VOID', 'ID_VOID'],
        `${subject} at ${node.name}`,
      );
    }
  }
  // Waited for on every node before one of them gives the first id.
  const name = `new.${floor}`;
  const firsts = among.flatMap((node) =>
    [name, 'new.*'].map(async (pattern) => {
      const options = { start: 'new', signal: AbortSignal.timeout(PATIENCE_MS) } as const;
      for await (const { id, subject } of node.client.subscribe(pattern, options)) {
        if (subject === name) return id;
      }
      return null;
    }),
  );
  for (const node of among) assert.equal(await shown(node, name, floor + 1), 'ID_NOT_FOUND');
  let isOver = false;
  const all = Promise.all(firsts).finally(() => {
    isOver = true;
  });
  const ids: number[] = [];
  // A subscription begins when it has begun: until then what is published may be before its start.
  while (!isOver && ids.length < 1_000) {
    const node = among[ids.length % among.length] as Node;
    ids.push(await node.client.publish(name, 'x'));
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  assert.equal(ids[0], floor + 1);
  for (const id of await all) assert.ok(id !== null && id > floor);
  for (const node of among) assert.equal(await shown(node, name, floor), 'ID_TRIMMED');
}

describe('A cluster that has lost most of its nodes', { timeout: 440_000 }, () => {
  it('goes on from the data directory of one that is left: the others join it, and what was there of the old one is kept out', async (t) => {
    const [n1, n2, n3] = [await Node.create('n1'), await Node.create('n2'), await Node.create('n3')] as const;
    await n1.start('--bootstrap');
    await n2.start('--join', n1.process.address);
    await n3.start('--join', n1.process.address);
    await voters(n1, 3);
    const under = load([n1, n2, n3]);
    await until(
      () => (acked.get('r.two')?.size ?? 0) > 150,
      () => published,
    );
    await Promise.all([n1, n2, n3].map((node) => node.process.kill()));
    await under;
    const old = join(temporaryFolder(t), 'n2');
    cpSync(n2.process.dataDir, old, { recursive: true });

    await refused([...n3.recover, '--yes'], /has Raft state: it knows 2 subjects/);
    const done = await succeeded([...n3.recover, '--discard-state', '--yes']);
    assert.deepEqual([done.nodes_fenced, done.subjects, done.subjects_of_log], [3, 2, 2]);
    // With the flags of before, which name members that are no more.
    await n3.start('--join', `${n1.process.address},${n2.process.address}`);
    await voters(n3, 1);
    await readAll(n3);

    // A member of before, with its data directory.
    const back = await BrokerProcess.create({ dataDir: old });
    t.after(() => back.dispose());
    const [port] = await freePorts(1);
    const own = [...flags, '--node-id', 'n2', '--raft-listen', `127.0.0.1:${port}`];
    await assert.rejects(back.restart({ flags: [...own, '--join', n3.process.address] }), /STORE_UNUSABLE/);

    await n1.startWiped(n3);
    await n2.startWiped(n3);
    await voters(n2, 3);
    const heads = new Map<string, number>();
    for (const subject of SUBJECTS) {
      const { head } = await n1.client.subject(subject);
      assert.ok(head - GAP >= largest(subject), 'an acknowledged id is above the head of before');
      heads.set(subject, head - GAP);
    }
    await checkIds([n1, n2, n3], heads, Number(done.floor));
    for (const node of [n1, n2, n3]) await readAll(node);
  });

  it('goes on from an empty data directory: processes of the old one that still run are ended, and none of their ids is given again', async () => {
    const before = nodes.slice(0, 3);
    const under = load(before);
    const begun = published;
    await until(
      () => published > begun + 100,
      () => published,
    );
    const n4 = await Node.create('n4');
    const done = await succeeded([...n4.recover, '--yes']);
    for (const { process } of before) assert.equal((await process.exited).code, 78, process.logs);
    await under;
    await n4.start('--bootstrap');
    await readAll(n4);
    const [n1, n2] = before as [Node, Node];
    await assert.rejects(n2.start('--join', n4.process.address), /STORE_UNUSABLE/);
    await n1.startWiped(n4);
    await n2.startWiped(n4);
    await voters(n1, 3);
    const heads = new Map<string, number>();
    for (const subject of SUBJECTS) {
      const { head } = await n1.client.subject(subject);
      assert.ok(head - GAP >= largest(subject), 'an acknowledged id is above the head of before');
      heads.set(subject, head - GAP);
    }
    await checkIds([n4, n1, n2], heads, Number(done.floor));
    for (const node of [n4, n1, n2]) await readAll(node);
  });

  it('is restored from the backup of a member that was stopped', async (t) => {
    const folder = temporaryFolder(t);
    const [, , , n4] = nodes as [Node, Node, Node, Node];
    await Promise.all(nodes.map((node) => node.process.stop()));
    const [to, dataDir] = [join(folder, 'backup'), join(folder, 'restored')];
    const made = await succeeded(['backup', '--data-dir', n4.process.dataDir, '--to', to, ...flags]);
    assert.equal(made.store, 'postgres');
    const restore = ['restore', '--from', to, '--data-dir', dataDir, ...flags, '--node-id', 'n5', '--yes'];
    const done = await succeeded(restore);
    assert.equal(done.subjects, made.subjects);
    const n5 = await BrokerProcess.create({ dataDir });
    t.after(() => n5.dispose());
    await n5.restart({ flags: [...flags, '--node-id', 'n5', '--shards', '1'] });
    const client = connect(n5.address);
    t.after(() => client.close());
    for (const [subject, messages] of acked) {
      for (const [id, text] of [...messages].slice(-20)) assert.equal((await client.fetch(subject, id)).text, text);
      assert.ok((await client.publish(subject, 'x')) > largest(subject) + GAP);
    }
  });
});
