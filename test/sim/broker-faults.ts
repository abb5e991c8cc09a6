/** What goes wrong in a run, and when: each seed has its own mix, since with everything at once little would get done. */
import { slotOfHash, subjectHash } from '../../src/base/subject.ts';
import type { MemoryDisk } from '../unit/embedded-memory-disk.ts';
import type { SimPublisher, SimSubscriber } from './broker-clients.ts';
import { LOW_SPACE_BYTES, SHARDS_MAX, type SimNode } from './broker-node.ts';
import type { BrokerOracle } from './broker-oracle.ts';
import { CALM_STORE, type StoreFaults } from './broker-store.ts';
import { Actor, type SimTime } from './broker-time.ts';
import type { SimEndpoints } from './broker-wire.ts';

/** A disk with room. */
const SPACE_BYTES = 2 ** 40;

interface Client {
  readonly actor: Actor;
  readonly endpoints: SimEndpoints;
}

export interface FaultWorld {
  readonly time: SimTime;
  readonly node: SimNode;
  readonly oracle: BrokerOracle;
  readonly subjects: readonly string[];
  readonly publishers: readonly SimPublisher[];
  readonly subscribers: readonly SimSubscriber[];
  /** Clients with endpoints that are neither. */
  readonly others: readonly Client[];
  /** The first id that the log still has. */
  firstOf(subject: string): number;
  /** Another subscriber begins, wherever it likes. */
  join(): void;
  leave(subscriber: SimSubscriber): void;
}

const KINDS = [
  'breaks',
  'downs',
  'stalls',
  'moves',
  'resizes',
  'deaths',
  'outages',
  'trims',
  'idlers',
  'joins',
  'leaves',
  'drops',
] as const;
type Kind = (typeof KINDS)[number];

/** A move that is to be given up has its source stand still for longer than the front waits for a drain (1 s). */
const DRAIN_STALL_MS = [1_000, 1_600] as const;

export class Faults {
  readonly #world: FaultWorld;
  readonly #actor = new Actor('faults');
  readonly #kinds: readonly Kind[];
  /** Longest pause between two faults of one kind, in ms. */
  readonly #pauseMsMax: number;
  #isOver = false;
  /** Drops of segments that have begun, or wait for their turn: until they have ended the log may trim any subject. */
  #drops = 0;
  /** That the broker has answered. */
  trims = 0;

  constructor(world: FaultWorld) {
    this.#world = world;
    const { time, node } = world;
    const { random } = time;
    this.#kinds = KINDS.filter(() => random.chance(2, 5));
    this.#pauseMsMax = random.chance(1, 3) ? 150 : 100 + random.nextBelow(900);
    node.database.faults = drawStore(time);
    node.raft.syncMsMax = random.chance(1, 4) ? 30 : 2;
    for (const kind of this.#kinds) this.#later(kind);
  }

  get isDropping(): boolean {
    return this.#drops > 0;
  }

  /** From now on nothing goes wrong any more, but for drops that have begun. */
  stop(): void {
    const { node, time } = this.#world;
    this.#isOver = true;
    node.database.faults = CALM_STORE;
    node.database.awayUntil = 0;
    if (node.disk !== null) node.disk.free = SPACE_BYTES;
    node.raft.syncMsMax = 1;
    for (const { endpoints } of this.#clients) endpoints.downUntil = 0;
    for (const subscriber of this.#world.subscribers) subscriber.idleUntil = Math.min(subscriber.idleUntil, time.now);
  }

  get #clients(): readonly Client[] {
    const { publishers, subscribers, others } = this.#world;
    return [...publishers, ...subscribers, ...others];
  }

  #later(kind: Kind): void {
    const { time } = this.#world;
    time.post(this.#actor, time.between(10, this.#pauseMsMax), () => {
      if (this.#isOver) return;
      time.note(kind);
      this.#strike(kind);
      this.#later(kind);
    });
  }

  #strike(kind: Kind): void {
    const { time, node } = this.#world;
    const { random } = time;
    switch (kind) {
      case 'breaks':
        this.#break();
        return;
      case 'downs': {
        const client = this.#anyClient();
        for (const stream of client?.endpoints.streams ?? []) stream.break(time.between(0, 5), time.between(0, 300));
        if (client !== undefined) client.endpoints.downUntil = time.now + time.between(10, 500);
        return;
      }
      case 'stalls': {
        const shards = node.pool.members.map((shard) => node.pool.actorOf(shard));
        const clients = this.#clients.map(({ actor: client }) => client);
        const actors = [node.main, node.raft.actor, ...shards, ...clients];
        const actor = actors[random.nextBelow(actors.length)];
        const ms = random.chance(1, 5) ? time.between(100, 1_500) : time.between(1, 60);
        actor?.pauseUntil(time.now + ms);
        return;
      }
      case 'moves':
        this.#move();
        return;
      case 'resizes':
        if (node.resizer.isFree) time.as(node.main, () => node.resizer.resize(1 + random.nextBelow(SHARDS_MAX)));
        return;
      case 'deaths':
        node.pool.kill(random.nextBelow(SHARDS_MAX));
        return;
      case 'drops':
        this.#drop();
        return;
      case 'outages':
        if (node.disk !== null) {
          this.#fillDisk(node.disk);
          return;
        }
        node.database.awayUntil = time.now + (random.chance(1, 4) ? time.between(1_000, 6_000) : time.between(5, 400));
        return;
      case 'trims':
        this.#trim();
        return;
      case 'joins':
        this.#world.join();
        return;
      case 'leaves': {
        const subscriber = this.#anySubscriber();
        if (subscriber !== undefined) this.#world.leave(subscriber);
        return;
      }
      case 'idlers': {
        const subscriber = this.#anySubscriber();
        if (subscriber !== undefined) subscriber.idleUntil = time.now + time.between(50, 2_000);
        return;
      }
    }
  }

  /** One side may go on for long with a stream that is not there any more. */
  #break(): void {
    const { time } = this.#world;
    const streams = [...(this.#anyClient()?.endpoints.streams ?? [])].filter(({ isOpen }) => isOpen);
    const stream = streams[time.random.nextBelow(Math.max(1, streams.length))];
    const late = (): number => (time.random.chance(1, 4) ? time.between(0, 1_000) : time.between(0, 2));
    stream?.break(late(), late());
  }

  #move(): void {
    const { time, node, subjects } = this.#world;
    const { random } = time;
    if (!node.resizer.isFree) return;
    const name = Buffer.from(subjects[random.nextBelow(subjects.length)] as string);
    const slot = slotOfHash(subjectHash(name, 0, name.length));
    const { members } = node.pool;
    const target = members[random.nextBelow(members.length)] as number;
    const source = node.table.ownerOf(slot);
    if (random.chance(1, 3)) {
      const actor = node.pool.actorOf(source);
      actor?.pauseUntil(time.now + time.between(...DRAIN_STALL_MS));
    }
    time.as(node.main, () => node.resizer.move(slot, target));
  }

  #fillDisk(disk: MemoryDisk): void {
    const { time } = this.#world;
    disk.free = LOW_SPACE_BYTES / 2;
    time.post(this.#actor, time.between(50, 1_500), () => {
      disk.free = SPACE_BYTES;
    });
  }

  /** What is dropped is known to the log alone: until it is asked, anything may be. */
  #drop(): void {
    const { time, node, oracle, subjects } = this.#world;
    if (node.disk === null) return;
    for (const subject of subjects) oracle.retainedFrom(subject, Number.MAX_SAFE_INTEGER);
    const count = 1 + time.random.nextBelow(3);
    this.#drops += 1;
    time.as(node.main, () => {
      node.turns
        .run(() => node.pool.dropSegments(count))
        // What a shard has asked of the log before it died may be applied later than anybody hears of its death.
        .then(() => node.pool.whenAllReady())
        .then(() => this.#dropped())
        .catch((error: unknown) => time.fail(error));
    });
  }

  #dropped(): void {
    const { oracle, subjects, firstOf } = this.#world;
    this.#drops -= 1;
    if (this.#drops > 0) return;
    for (const subject of subjects) oracle.retainedFrom(subject, firstOf(subject));
  }

  /** Somewhere between the last trim and the last id that anybody has seen. */
  #trim(): void {
    const { time, node, oracle, subjects } = this.#world;
    const subject = subjects[time.random.nextBelow(subjects.length)] as string;
    const last = oracle.lastOf(subject);
    const first = Math.min(oracle.firstOf(subject), last);
    if (last <= first) return;
    const wanted = first + 1 + time.random.nextBelow(last - first + 1);
    oracle.trimmedTo(subject, wanted);
    time.as(node.main, () => {
      node.dispatcher.trim(Buffer.from(subject), wanted).then(
        () => {
          this.trims += 1;
        },
        (error: unknown) => time.note(String(error)),
      );
    });
  }

  #anyClient(): Client | undefined {
    const clients = this.#clients;
    return clients[this.#world.time.random.nextBelow(Math.max(1, clients.length))];
  }

  #anySubscriber(): SimSubscriber | undefined {
    const { subscribers, time } = this.#world;
    return subscribers[time.random.nextBelow(Math.max(1, subscribers.length))];
  }
}

function drawStore({ random }: SimTime): StoreFaults {
  const some = (max: number): number => (random.chance(1, 3) ? random.nextBelow(max) : 0);
  return {
    writeMsMax: random.chance(1, 3) ? 60 : 4,
    readMsMax: random.chance(1, 3) ? 40 : 3,
    refused: some(300),
    lost: some(60),
    unheard: some(60),
    late: some(80),
    lateMsMax: 3_000,
    readsRefused: some(60),
  };
}
