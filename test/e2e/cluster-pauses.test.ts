/** Three real nodes on a real PostgreSQL that stand still: for their store, for their garbage, for good. The log goes on, and so do clients. */
import assert from 'node:assert/strict';
import { after, describe, it } from 'node:test';
import { type Client, type ClientError, connect } from '../../src/client/index.ts';
import { PostgresServer } from '../servers/postgres.ts';
import { Relay } from '../servers/relay.ts';
import type { BrokerProcess } from '../support/broker.ts';
import { BrokerClient, CallError } from '../support/client.ts';
import { Cluster, type ClusterNode } from '../support/cluster.ts';
import { largest } from '../support/largest.ts';
import { until } from '../support/until.ts';
import { Metrics, publishAll } from './flow-rig.ts';

const PATIENCE_MS = 120_000;
const ELECTION_TIMEOUT_MS = 1_000;
/** A follower that hears nothing for between one and two election timeouts calls an election: this is longer. */
const STILL_MS = 2.5 * ELECTION_TIMEOUT_MS;
/** Of one node; a fourth of the publishes that it is given at a time is beyond it. */
const IN_FLIGHT_CALLS = 24;
const WRITES = 'broker_store_write_seconds_count';
const WRITE_SECONDS = 'broker_store_write_seconds_sum';

const server = await PostgresServer.start();
const relay = await Relay.start('127.0.0.1', server.port);
after(async () => {
  relay.close();
  await server.remove();
});
const cluster = await Cluster.start({
  nodes: 3,
  storeFlags: server.brokerFlags(relay.through(server.url)),
  flags: [
    ...['--shards', '1'],
    ...['--raft-election-timeout', `${ELECTION_TIMEOUT_MS}ms`],
    ...['--limits-in-flight-calls', String(IN_FLIGHT_CALLS)],
    // A slow store is slow here, it is not away.
    ...['--store-timeout', '60s'],
  ],
  // SIGUSR1 opens the inspector of a node: each on a port of its own, not on the one that Node has for all.
  env: { NODE_OPTIONS: '--inspect-port=127.0.0.1:0' },
});
const clients = cluster.nodes.map(({ address }) => new BrokerClient(address, { timeoutMs: PATIENCE_MS }));
after(async () => {
  for (const client of clients) client.close();
  await cluster[Symbol.asyncDispose]();
});

const clientOf = ({ index }: ClusterNode): BrokerClient => clients[index] as BrokerClient;

/** Who leads in which term, as each node says: an election changes it, also one that the old leader wins. */
async function reign(): Promise<string[]> {
  await cluster.untilLeader(PATIENCE_MS);
  const answers = await Promise.all(cluster.nodes.map((node) => node.members(PATIENCE_MS)));
  return answers.map(({ nodeId, leader, term }) => `${nodeId}: ${leader} in term ${term}`);
}

/** A metric of each node. */
function metric(name: string): Promise<number[]> {
  return Promise.all(cluster.nodes.map(async ({ broker }) => (await Metrics.of(broker)).sum(name)));
}

/** Each id of a subject up to the last one that was acknowledged is, at each node, what was acknowledged, or void. */
async function assertKept(subject: string, acked: ReadonlyMap<number, string>): Promise<void> {
  const last = largest(acked.keys());
  for (const node of cluster.nodes) {
    await publishAll(last, IN_FLIGHT_CALLS / 2, async (number) => {
      const id = number + 1;
      const found = await clientOf(node)
        .fetch(subject, id)
        .then(
          ({ body }) => String(body),
          ({ reason }: CallError) => reason,
        );
      assert.equal(found, acked.get(id) ?? 'ID_VOID', `${subject} ${id} at ${node.id}`);
    });
  }
}

/** Id of a message that is sent until it is stored. */
async function sent(
  client: Client,
  subject: string,
  text: string,
  producer: { readonly id: string; readonly sequence: number },
): Promise<number> {
  let id = 0;
  let last: unknown = null;
  await until(
    async () => {
      id = await client.publish(subject, text, { producer }).catch((error: ClientError) => {
        last = error;
        return 0;
      });
      return id > 0;
    },
    () => `${text}: ${last}`,
  );
  return id;
}

async function collectGarbage(broker: BrokerProcess): Promise<number[]> {
  const inspector = await Inspector.open(broker);
  try {
    return await inspector.collectGarbage(STILL_MS);
  } finally {
    inspector.close();
  }
}

interface Answer {
  readonly id?: number;
  readonly method?: string;
  readonly params?: { readonly sessionId: string; readonly message?: string; readonly workerInfo?: { url: string } };
  readonly result?: { readonly result?: { readonly value?: unknown }; readonly exceptionDetails?: unknown };
  readonly error?: unknown;
}

/** Collections of all generations one after the other, among which nothing else of the thread runs. Their number. */
function collect(stillMs: number): number {
  const { setFlagsFromString } = process.getBuiltinModule('node:v8');
  setFlagsFromString('--expose-gc');
  const gc = process.getBuiltinModule('node:vm').runInNewContext('gc') as () => void;
  // Something to look at, so that one takes some time.
  const kept = Array.from({ length: 100_000 }, (_, n) => ({ n }));
  let rounds = 0;
  for (const end = performance.now() + stillMs; performance.now() < end && kept.length > 0; rounds += 1) gc();
  return rounds;
}

/** The debugger of a process: what it evaluates runs in the midst of whatever the thread does. */
class Inspector {
  readonly #socket: WebSocket;
  readonly #waiting = new Map<number, (answer: Answer) => void>();
  /** Session of each thread but the main one, and what it runs. */
  readonly #threads = new Map<string, string>();
  #asked = 0;

  private constructor(socket: WebSocket) {
    this.#socket = socket;
    socket.addEventListener('message', ({ data }) => this.#take(JSON.parse(String(data))));
  }

  static async open(broker: BrokerProcess): Promise<Inspector> {
    process.kill(broker.pid, 'SIGUSR1');
    const address = (): string | undefined => /Debugger listening on (ws:\S+)/.exec(broker.logs)?.[1];
    await until(
      () => address() !== undefined,
      () => broker.logs,
    );
    const socket = new WebSocket(address() as string);
    await new Promise((resolve, reject) => {
      socket.addEventListener('open', resolve);
      socket.addEventListener('error', reject);
    });
    const inspector = new Inspector(socket);
    await inspector.#ask(null, 'NodeWorker.enable', { waitForDebuggerOnStart: false });
    return inspector;
  }

  /**
   * Main and shards collect for so long, the Raft thread once: a leader whose own thread stands still for that long is rightly replaced.
   * Resolves with how often each did.
   */
  async collectGarbage(stillMs: number): Promise<number[]> {
    const urls = [...this.#threads.values()];
    assert(urls.length >= 2 && urls.filter(isRaft).length === 1, `threads: ${urls}`);
    // The main thread hands on what is for the others: it comes last.
    const threads = [...this.#threads, [null, 'main'] as const];
    return await Promise.all(
      threads.map(async ([session, url]) => {
        const expression = `(${collect})(${isRaft(url) ? 1 : stillMs})`;
        const { result, error } = await this.#ask(session, 'Runtime.evaluate', { expression, returnByValue: true });
        const count = result?.result?.value;
        return typeof count === 'number' ? count : assert.fail(`${url}: ${JSON.stringify(error ?? result)}`);
      }),
    );
  }

  close(): void {
    this.#socket.close();
  }

  /** `session`: of a thread; null: the main one. */
  #ask(session: string | null, method: string, params: object): Promise<Answer> {
    this.#asked += 1;
    const id = this.#asked;
    const { promise, resolve } = Promise.withResolvers<Answer>();
    this.#waiting.set(id, resolve);
    const request = { id, method, params };
    if (session === null) this.#socket.send(JSON.stringify(request));
    else {
      const passedOn = { sessionId: session, message: JSON.stringify(request) };
      this.#socket.send(JSON.stringify({ id: -id, method: 'NodeWorker.sendMessageToWorker', params: passedOn }));
    }
    return promise;
  }

  #take(answer: Answer): void {
    const { id, method, params } = answer;
    if (id !== undefined) this.#waiting.get(id)?.(answer);
    if (params === undefined) return;
    if (method === 'NodeWorker.attachedToWorker') this.#threads.set(params.sessionId, params.workerInfo?.url ?? '');
    if (method === 'NodeWorker.receivedMessageFromWorker') this.#take(JSON.parse(params.message ?? ''));
  }
}

const isRaft = (url: string): boolean => /raft-thread/.test(url);

describe('A cluster of three nodes', { timeout: 600_000 }, () => {
  it('[S15] whose store takes 2 s more for each answer: no election, callers wait or are refused, nothing is lost, and it is quick again when the store is', async (t) => {
    const DELAY_MS = 2 * ELECTION_TIMEOUT_MS;
    const subject = 'slow.store';
    const acked = new Map<number, string>();
    const refused = new Set<string>();
    /** False: it was refused, and may come again. */
    const publish = async (node: ClusterNode, text: string): Promise<boolean> => {
      try {
        const id = await clientOf(node).publish({ subject, body: Buffer.from(text) });
        assert.equal(acked.get(id), undefined, `id ${id} was given twice`);
        acked.set(id, text);
        return true;
      } catch (error) {
        assert(error instanceof CallError, String(error));
        assert.equal(error.statusName, 'RESOURCE_EXHAUSTED', String(error));
        assert.equal(error.outcome, 'none', String(error));
        assert((error.retryAfterMs ?? 0) > 0, String(error));
        refused.add(node.id);
        return false;
      }
    };
    let waves = 0;
    /** All are answered before the next begins: the log has nothing to carry while the store writes, so heartbeats alone show who leads. */
    const wave = async (): Promise<void> => {
      const each = Array.from({ length: (IN_FLIGHT_CALLS * 4) / 3 }, (_, n) => n);
      await Promise.all(cluster.nodes.flatMap((node) => each.map((n) => publish(node, `${node.id} ${waves} ${n}`))));
      waves += 1;
    };
    await wave();
    const before = await reign();
    const [writesBefore, timeBefore] = [await metric(WRITES), await metric(WRITE_SECONDS)];
    refused.clear();
    t.after(() => relay.restore());
    relay.delayReplies(DELAY_MS);
    const [atStore, inFlight] = [new Set<number>(), [0, 0, 0]];
    let isOver = false;
    const load = (async (): Promise<void> => {
      for (const first = waves; !isOver || waves < first + 2; ) await wave();
    })();
    const seesWait = async (): Promise<boolean> => {
      for (const [node, count] of (await metric('broker_store_requests_in_flight')).entries()) {
        if (count > 0) atStore.add(node);
      }
      for (const [node, count] of (await metric('broker_calls_in_flight')).entries()) {
        inFlight[node] = Math.max(inFlight[node] as number, count);
      }
      return atStore.size === cluster.nodes.length && refused.size === cluster.nodes.length;
    };
    await Promise.race([
      load,
      until(seesWait, () => `requests at the store of ${[...atStore]}, refusals of ${[...refused]}`),
    ]).finally(() => {
      isOver = true;
    });
    await load;
    assert.deepEqual(await reign(), before);
    assert(Math.max(...inFlight) <= IN_FLIGHT_CALLS, `${inFlight} calls were in flight`);
    const [writes, time] = [await metric(WRITES), await metric(WRITE_SECONDS)];
    for (const { index, id } of cluster.nodes) {
      const count = (writes[index] as number) - (writesBefore[index] as number);
      const seconds = (time[index] as number) - (timeBefore[index] as number);
      // Timers may be a little early, and a histogram rounds.
      assert(count > 0 && seconds / count > (DELAY_MS / 1_000) * 0.9, `${id}: ${count} writes took ${seconds} s`);
    }

    relay.restore();
    for (const node of cluster.nodes) {
      await until(
        async () => {
          const began = performance.now();
          const isAcked = await publish(node, `${node.id} again at ${began}`);
          return isAcked && performance.now() - began < DELAY_MS;
        },
        () => `${node.id} is as slow as before`,
      );
    }
    await assertKept(subject, acked);
    assert.deepEqual(await reign(), before);
  });

  it('[W9] whose threads collect garbage for longer than an election takes, those of the leader, then all at once: no call fails, no election', async () => {
    const subject = 'garbage';
    const ids = new Set<number>();
    const before = await reign();
    const leader = await cluster.untilLeader(PATIENCE_MS);
    // First the leader alone, with nothing published through the others: they hear nothing but its heartbeats. Then all, who could take each other for dead.
    for (const paused of [[leader], cluster.nodes]) {
      let isOver = false;
      const more = ids.size + 100;
      const publishers = Promise.all(
        paused.flatMap((node) =>
          Array.from({ length: 8 }, async () => {
            // On until the pause is over and some more were answered.
            for (let rest = 5; rest > 0; ) {
              ids.add(await clientOf(node).publish({ subject, body: Buffer.alloc(100, 1) }));
              if (isOver) rest -= 1;
            }
          }),
        ),
      );
      const pause = (async (): Promise<void> => {
        await until(
          () => ids.size >= more,
          () => 'no load',
        );
        const rounds = await Promise.all(paused.map(({ broker }) => collectGarbage(broker)));
        assert(
          rounds.flat().every((count) => count > 0),
          `collections: ${rounds}`,
        );
      })().finally(() => {
        isOver = true;
      });
      await Promise.all([publishers, pause]);
    }
    assert.deepEqual(await reign(), before);
    // A call that fails in the middle would leave an id out.
    assert.equal(largest(ids), ids.size);
    for (const { broker } of cluster.nodes) assert(!broker.logs.includes('a shard thread died'), broker.logs);
  });

  it('[P6] whose leader is killed with -9 while it serves a consumer: that goes on over another node, each id once and in order, and the dead one joins again', async (t) => {
    const subject = 'served.by.the.dead';
    const client = connect(cluster.addresses, { timeoutMs: PATIENCE_MS });
    const publishers = new Map(cluster.nodes.map((node) => [node, connect(node.address, { timeoutMs: PATIENCE_MS })]));
    t.after(() => Promise.all([client, ...publishers.values()].map((one) => one.close())));
    const subscription = client.subscribe(subject, { start: 'earliest' });
    await subscription.started;
    const streams = (): Promise<number[]> =>
      Promise.all(
        cluster.nodes.map(async ({ broker }) =>
          broker.running ? (await Metrics.of(broker)).sum('broker_consume_streams') : 0,
        ),
      );
    const dead = cluster.nodes[(await streams()).indexOf(1)] as ClusterNode;
    assert.notEqual(dead, undefined);
    // Publishes are on their way in the log when it dies: some are open, and what becomes of them is for the next leader to settle.
    if ((await cluster.untilLeader(PATIENCE_MS)) !== dead) await client.transferLeader(dead.id);
    await until(
      async () => (await cluster.leader()) === dead,
      () => `${dead.id} does not lead`,
    );

    const seen: { id: number; text: string }[] = [];
    const reading = (async (): Promise<void> => {
      for await (const { id, text } of subscription) seen.push({ id, text });
    })();
    const acked = new Map<number, string>();
    let isOver = false;
    /** Each text is stored once, whatever becomes of the first try. */
    const publish = async (node: ClusterNode, producer: string, sequence: number): Promise<void> => {
      const text = `${producer} ${sequence}`;
      const id = await sent(publishers.get(node) as Client, subject, text, { id: producer, sequence });
      assert.equal(acked.get(id), undefined, `id ${id} was given twice`);
      acked.set(id, text);
    };
    const alive = cluster.nodes.filter((node) => node !== dead);
    const load = Promise.all(
      alive.flatMap((node) =>
        Array.from({ length: 3 }, async (_, lane) => {
          for (let sequence = 1; !isOver; sequence += 1) await publish(node, `${node.id}-${lane}`, sequence);
        }),
      ),
    );
    const untilSeen = (holds: () => boolean): Promise<void> =>
      until(holds, () => `${seen.length} were seen, ${acked.size} acknowledged; logs in ${cluster.keep()}`);
    const work = (async (): Promise<void> => {
      await untilSeen(() => seen.length >= 100);
      await dead.kill();
      const before = seen.length;
      await untilSeen(() => seen.length >= before + 200);
    })();
    await Promise.race([work, load, reading]).finally(() => {
      isOver = true;
    });
    await Promise.all([work, load]);
    assert(subscription.streams > 1, 'its stream was not cut');

    await cluster.startAll();
    await cluster.untilVoters();
    await publish(dead, 'the dead', 1);
    const last = largest(acked.keys());
    await untilSeen(() => (seen.at(-1)?.id ?? 0) >= last);
    assert.equal(
      (await streams()).reduce((sum, count) => sum + count),
      1,
    );
    await subscription.close();
    await reading;
    for (const [index, { id, text }] of seen.entries()) {
      assert.equal(text, acked.get(id), `id ${id}`);
      assert(id > (seen[index - 1]?.id ?? 0), `id ${id} came behind ${seen[index - 1]?.id}`);
    }
    assert.equal(seen.at(-1)?.id, last);
    assert.equal(seen.length, acked.size);
    await assertKept(subject, acked);
  });
});
