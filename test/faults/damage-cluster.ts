/** Three real brokers on a real PostgreSQL whose Raft logs and snapshots are damaged while they do not run: on one of them, then on two. */
import { randomBytes } from 'node:crypto';
import { cpSync, existsSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { Prng } from '../../src/base/prng.ts';
import { choosePostgres } from '../servers/chosen-server.ts';
import { httpStatus } from '../support/broker.ts';
import { BrokerClient, CallError } from '../support/client.ts';
import { Cluster, type ClusterNode } from '../support/cluster.ts';
import { largest } from '../support/largest.ts';
import { pause } from '../support/until.ts';
import { onThisMachine } from '../support/yardstick.ts';
import { type Damage, type DamageChoice, damageOne, deleted, type FileKind, inWords, listing } from './damage.ts';
import { type Acked, hashOf, publishMany } from './damage-directory.ts';
import { compareServed, judgeLog, logState, type Served } from './damage-files.ts';
import { logLines } from './rig.ts';

const NODES = 3;
/** What the promise gives a damaged node. */
const REPAIR_MS = 30_000;
const HALT_MS = 60_000;
/** Snapshots come often, so that there are some to be damaged. */
const FLAGS = ['--raft-snapshot-entries', '100', '--raft-election-timeout', '500ms', '--raft-heartbeat', '50ms'];
const LOG_FILES: readonly FileKind[] = ['log', 'log end', 'snapshot'];
const NO_HIT: ReadonlySet<string> = new Set();

export interface MinorityOutcome {
  readonly what: string;
  /** `repaired`: it said that its log is damaged, and came back as another instance; `noticed`: a file went into quarantine; `harmless`: the log says what it said. */
  readonly ending: 'repaired' | 'noticed' | 'harmless';
  /** From its start until it was a voter again and ready. */
  readonly ms: number;
  readonly violations: readonly string[];
}

export class DamagedCluster implements AsyncDisposable {
  readonly cluster: Cluster;
  readonly acked: Acked = new Map();
  readonly #database: Awaited<ReturnType<typeof choosePostgres>>;
  readonly #prng: Prng;
  #clients: BrokerClient[] = [];

  private constructor(cluster: Cluster, database: Awaited<ReturnType<typeof choosePostgres>>, seed: number) {
    this.cluster = cluster;
    this.#database = database;
    this.#prng = new Prng(seed);
  }

  /** `messages` are acknowledged; `withOlder`: every node has been stopped once, so that old chunks can come back. */
  static async start(seed: number, messages: number, withOlder = true): Promise<DamagedCluster> {
    const database = await choosePostgres(['max_connections=200']);
    const storeFlags = database.flags(`damage_${randomBytes(6).toString('hex')}`);
    try {
      const cluster = await Cluster.start({ nodes: NODES, storeFlags, flags: FLAGS });
      const made = new DamagedCluster(cluster, database, seed);
      await made.publish(messages);
      for (const node of withOlder ? cluster.nodes : []) {
        await node.broker.stop();
        made.#keepOlder(node);
        await node.broker.restart();
      }
      await made.publish(messages);
      return made;
    } catch (error) {
      await database.remove();
      throw error;
    }
  }

  get nodes(): readonly ClusterNode[] {
    return this.cluster.nodes;
  }

  /** Through all that run. */
  async publish(count: number): Promise<void> {
    const clients = this.nodes.filter(({ broker }) => broker.running).map(({ address }) => new BrokerClient(address));
    this.#clients.push(...clients);
    await publishMany(clients, this.#prng, count, this.acked);
    for (const client of clients) client.close();
    this.#clients = this.#clients.filter((client) => !clients.includes(client));
  }

  /** One node is stopped (or killed with -9), damaged once, and started while the others serve. */
  async minority(prng: Prng, choice: Partial<DamageChoice> = {}): Promise<MinorityOutcome | null> {
    const node = this.nodes[prng.nextBelow(NODES)] as ClusterNode;
    // What was lost of the newest records behind a kill cannot be seen by anybody (traps R24), so the node is stopped.
    await node.broker.stop();
    const root = node.broker.dataDir;
    const older = this.#olderOf(node);
    const said = logState(root);
    const damage = damageOne(prng, { files: LOG_FILES, ...choice, root, older });
    if (damage === null) {
      await node.broker.restart();
      return null;
    }
    const before = listing(root);
    const expected = this.#expect(root, said);
    await this.publish(20);
    const [begun, since] = [performance.now(), Date.now()];
    node.broker.launch();
    const violations = [...expected.violations, ...(await this.#backAsVoter(node, begun))];
    const ms = performance.now() - begun;
    const isRepaired = logLines(node.broker.logs).some(
      ({ at, reason }) => at >= since && reason === 'RAFT_LOG_DAMAGED',
    );
    if (expected.ending === 'refused' && !isRepaired) violations.push('the damage was not told');
    // A log that goes on drops what its snapshots stand for; one that was put aside has all of it.
    if (isRepaired) violations.push(...deleted(before, listing(root), isTransient));
    this.#forgetAside(root);
    this.#keepOlder(node);
    const ending = isRepaired ? 'repaired' : expected.ending === 'noticed' ? 'noticed' : 'harmless';
    const about = `${node.id}, ${inWords(damage)}`;
    return { what: whatOf(damage), ending, ms, violations: violations.map((one) => `${about}: ${one}`) };
  }

  /** Two of three are damaged so that their logs cannot be used: both halt, the third serves nothing; with the files put back all is there. */
  async majority(prng: Prng): Promise<MajorityOutcome> {
    const first = prng.nextBelow(NODES);
    const hit = [first, (first + 1) % NODES].map((index) => this.nodes[index] as ClusterNode);
    const healthy = this.nodes[(first + 2) % NODES] as ClusterNode;
    for (const { broker } of this.nodes) await broker.stop();
    const violations: string[] = [];
    const damages: string[] = [];
    for (const node of hit) {
      cpSync(node.broker.dataDir, this.#asideOf(node), { recursive: true });
      damages.push(await this.#damageForSure(prng, node));
    }
    const before = hit.map(({ broker }) => listing(broker.dataDir));
    const [begun, since] = [performance.now(), Date.now()];
    for (const { broker } of this.nodes) broker.launch();
    const late = new Promise<null>((resolve) => setTimeout(resolve, HALT_MS, null).unref());
    for (const [index, { id, broker }] of hit.entries()) {
      const exit = await Promise.race([broker.exited, late]);
      if (exit === null) violations.push(`${id} did not halt within ${HALT_MS} ms`);
      else if (exit.code === 0 || exit.code === null) violations.push(`${id} ended with ${exit.code ?? exit.signal}`);
      const last = logLines(broker.logs).findLast(({ at, reason }) => at >= since && reason === 'RAFT_LOG_DAMAGED');
      const isClear =
        last !== undefined && /\/raft\b/.test(last.message) && /docs\/backup\.md, "A cluster"/.test(last.message);
      if (!isClear) violations.push(`${id} does not say what is damaged and what to do: ${last?.message}`);
      violations.push(...deleted(before[index] as ReturnType<typeof listing>, listing(broker.dataDir), isTransient));
    }
    const ms = performance.now() - begun;
    if ((await httpStatus(healthy.broker.adminAddress, '/readyz')) === 200) violations.push(`${healthy.id} is ready`);
    if (await this.#publishes(healthy)) violations.push(`${healthy.id} acknowledges alone`);
    for (const { broker } of this.nodes) await broker.kill();
    for (const node of hit) {
      rmSync(node.broker.dataDir, { recursive: true });
      cpSync(this.#asideOf(node), node.broker.dataDir, { recursive: true });
      rmSync(this.#asideOf(node), { recursive: true });
    }
    await this.cluster.startAll();
    await this.cluster.untilVoters();
    await this.publish(20);
    return { what: damages, ms, violations: violations.map((one) => `${damages.join(' and ')}: ${one}`) };
  }

  /** Everything that was acknowledged is on every node. */
  async judge(): Promise<string[]> {
    const violations: string[] = [];
    for (const { id, address } of this.nodes) {
      const served = await readEverything(address, this.acked);
      violations.push(...compareServed(served, this.acked, NO_HIT).violations.map((one) => `${id}: ${one}`));
    }
    return violations;
  }

  /** What the same files make of a copy of the log, opened in this process. */
  #expect(root: string, said: string): ReturnType<typeof judgeLog> {
    const copy = join(this.cluster.folder, 'looked-at');
    cpSync(root, copy, { recursive: true });
    try {
      return judgeLog(copy, said);
    } finally {
      rmSync(copy, { recursive: true });
    }
  }

  async #damageForSure(prng: Prng, node: ClusterNode): Promise<string> {
    const root = node.broker.dataDir;
    const said = logState(root);
    for (;;) {
      const damage = damageOne(prng, { root, older: this.#olderOf(node), files: LOG_FILES });
      if (damage !== null && this.#expect(root, said).ending === 'refused') return `${node.id}, ${inWords(damage)}`;
      // It can be done without: not what is wanted here.
      rmSync(root, { recursive: true });
      cpSync(this.#asideOf(node), root, { recursive: true });
    }
  }

  async #backAsVoter(node: ClusterNode, begun: number): Promise<string[]> {
    const repairMs = await onThisMachine(REPAIR_MS);
    while (performance.now() - begun < repairMs) {
      if (!node.broker.running) {
        const { code } = await node.broker.exited;
        return [`it ended with ${code}: ${logLines(node.broker.logs).at(-1)?.message}`];
      }
      const view = await node.members().catch((error: unknown) => {
        if (error instanceof CallError) return null;
        throw error;
      });
      const own = view?.members.find(({ nodeId }) => nodeId === node.id);
      const isWhole = view?.members.filter(({ role }) => role === 'voter').length === NODES;
      const isReady =
        own?.role === 'voter' && isWhole && (await httpStatus(node.broker.adminAddress, '/readyz')) === 200;
      if (isReady) return [];
      await pause(20);
    }
    const view = await node.members().catch((error: unknown) => String(error));
    const kept = this.cluster.keep();
    return [
      `it was no voter again within ${repairMs.toFixed(0)} ms: ${JSON.stringify(view)}; data and logs kept in ${kept}`,
    ];
  }

  async #publishes({ address }: ClusterNode): Promise<boolean> {
    const client = new BrokerClient(address);
    try {
      await client.publish({ subject: 'damage.alone', body: Buffer.from('x') }, 2_000);
      return true;
    } catch (error) {
      if (error instanceof CallError) return false;
      throw error;
    } finally {
      client.close();
    }
  }

  #olderOf({ id }: ClusterNode): string {
    return join(this.cluster.folder, `${id}-older`);
  }

  #asideOf({ id }: ClusterNode): string {
    return join(this.cluster.folder, `${id}-aside`);
  }

  #keepOlder(node: ClusterNode): void {
    rmSync(this.#olderOf(node), { recursive: true, force: true });
    const filter = (path: string): boolean => !/LOCK|reserve|damaged|quarantine/.test(path);
    cpSync(node.broker.dataDir, this.#olderOf(node), { recursive: true, filter });
  }

  /** What was put aside was looked at: a campaign of hundreds would fill the disk. */
  #forgetAside(root: string): void {
    for (const name of readdirSync(root)) {
      if (/^raft\.damaged-/.test(name)) rmSync(join(root, name), { recursive: true });
    }
    const quarantine = join(root, 'raft', 'quarantine');
    if (existsSync(quarantine)) rmSync(quarantine, { recursive: true });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const client of this.#clients) client.close();
    await this.cluster[Symbol.asyncDispose]();
    await this.#database.remove();
  }
}

export interface MajorityOutcome {
  readonly what: readonly string[];
  /** Until both had halted. */
  readonly ms: number;
  readonly violations: readonly string[];
}

export function whatOf({ file, kind }: Damage): string {
  return `${file}, ${kind}`;
}

/** Made and given up by every start and stop; and what a log that goes on drops behind a snapshot. */
function isTransient(path: string): boolean {
  return /LOCK|\.tmp$|CLUSTER|node\.json|reserve|raft\/end$/.test(path);
}

/** Subscribes to every subject from its beginning; what is lost is asked for by Fetch. */
export async function readEverything(address: string, acked: Acked): Promise<Served> {
  const client = new BrokerClient(address, { timeoutMs: 20_000 });
  const served: Served = new Map();
  try {
    for (const [subject, ids] of acked) {
      const last = largest(ids.keys());
      for (let next = 1; next <= last; ) next = await readFrom(client, subject, next, last, served);
    }
  } finally {
    client.close();
  }
  return served;
}

/** Up to `last`, or to the first id that cannot be served; the id behind it. */
function readFrom(client: BrokerClient, subject: string, from: number, last: number, served: Served): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  let next = from;
  const subscription = client.subscribe(
    subject,
    { at: 'id', id: from },
    {
      onMessage: ({ id, body }) => {
        served.set(`${subject}/${id}`, hashOf(body));
        next = id + 1;
        if (id >= last) resolve(next);
      },
      onEnd: (error) => {
        if (error === null) return;
        if (error.reason !== 'DATA_LOSS') {
          reject(error);
          return;
        }
        client.fetch(subject, next).then(
          () => reject(new Error(`${subject} ${next} is lost for a subscription and not for Fetch`)),
          (cause: unknown) => {
            const reason = cause instanceof CallError ? cause.reason : String(cause);
            served.set(`${subject}/${next}`, reason === 'DATA_LOSS' ? 'damaged' : String(reason));
            resolve(next + 1);
          },
        );
      },
    },
  );
  return promise.finally(() => subscription.cancel());
}
