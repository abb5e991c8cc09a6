import type { Prng } from '../../src/base/prng.ts';
import type { ClusterNode } from './cluster-node.ts';
import type { ClusterOracle } from './cluster-oracle.ts';
import type { Publish } from './cluster-shard.ts';
import { SafetyViolation } from './raft-checkers.ts';

const SUBJECTS: readonly string[] = ['orders', 'orders.eu', 'bills'];
const PRODUCERS: readonly string[] = ['p1', 'p2', 'p3'];
/** Sequences of a producer on their way. */
const WINDOW = 3;
const COUNT_MAX = 3;
/** After so many steps a client has waited long enough. */
const DEADLINE_STEPS = 400;
/** Before what was refused is sent again. */
const RETRY_STEPS = 10;

interface Attempt {
  readonly publish: Publish;
  readonly node: ClusterNode;
  readonly life: number;
  readonly deadline: number;
  isOver: boolean;
}

interface Producer {
  readonly name: string;
  readonly subject: string;
  nextSequence: number;
  /** Not acknowledged, in order. */
  readonly waiting: Publish[];
  node: ClusterNode | null;
  life: number;
  /** How many of `waiting` were sent on this connection. */
  sent: number;
  retryAt: number;
}

/** Clients: some publish once and take what they are told, some number what they publish and send it until it is there, through whichever node. */
export class SimClients {
  readonly #prng: Prng;
  readonly #oracle: ClusterOracle;
  readonly #serving: () => readonly ClusterNode[];
  readonly #producers: Producer[];
  #attempts: Attempt[] = [];
  #nextNumber = 1;
  #now = 0;

  constructor(prng: Prng, oracle: ClusterOracle, serving: () => readonly ClusterNode[]) {
    this.#prng = prng;
    this.#oracle = oracle;
    this.#serving = serving;
    this.#producers = PRODUCERS.map((name) => ({
      name,
      subject: this.someSubject(),
      nextSequence: 1,
      waiting: [],
      node: null,
      life: 0,
      sent: 0,
      retryAt: 0,
    }));
  }

  someSubject(): string {
    return SUBJECTS[this.#prng.nextBelow(SUBJECTS.length)] as string;
  }

  /** Everything numbered is acknowledged, and nobody waits. */
  get isDone(): boolean {
    return this.#attempts.length === 0 && this.#producers.every((producer) => producer.waiting.length === 0);
  }

  describe(): string {
    const waiting = this.#producers.map(
      ({ name, waiting: of }) => `${name} waits for ${of.map((each) => each.sequence).join()}`,
    );
    return `${this.#attempts.length} attempts; ${waiting.join('; ')}`;
  }

  /** New work. */
  act(): void {
    if (this.#prng.chance(1, 6)) {
      const node = this.#someNode();
      if (node !== undefined) {
        this.#send(this.#make(this.someSubject(), '', 0), node);
      }
    }
    for (const producer of this.#producers) {
      if (producer.waiting.length < WINDOW && this.#prng.chance(1, 12)) {
        producer.waiting.push(this.#make(producer.subject, producer.name, producer.nextSequence));
        producer.nextSequence += 1;
      }
    }
  }

  step(): void {
    this.#now += 1;
    for (const attempt of this.#attempts) {
      const isDead = attempt.node.life !== attempt.life || !attempt.node.isUp;
      if (!attempt.isOver && (isDead || this.#now >= attempt.deadline)) {
        attempt.isOver = true;
        this.#onLost(attempt.publish);
      }
    }
    this.#attempts = this.#attempts.filter((attempt) => !attempt.isOver);
    for (const producer of this.#producers) {
      this.#drive(producer);
    }
  }

  #someNode(): ClusterNode | undefined {
    const nodes = this.#serving();
    return nodes[this.#prng.nextBelow(Math.max(1, nodes.length))];
  }

  #make(subject: string, producer: string, sequence: number): Publish {
    const number = this.#nextNumber;
    this.#nextNumber += 1;
    return { number, subject, producer, sequence, count: 1 + this.#prng.nextBelow(COUNT_MAX) };
  }

  /** Sends what waits, in order, on one connection; after any failure on another one, from the first that waits. */
  #drive(producer: Producer): void {
    const isDead = producer.node === null || producer.node.life !== producer.life || !producer.node.isServing;
    if (isDead) {
      const node = this.#now >= producer.retryAt ? this.#someNode() : undefined;
      producer.node = node ?? null;
      producer.life = node?.life ?? 0;
      producer.sent = 0;
    }
    const { node } = producer;
    while (node !== null && producer.node === node && producer.sent < producer.waiting.length) {
      const publish = producer.waiting[producer.sent] as Publish;
      producer.sent += 1;
      this.#send(publish, node);
    }
  }

  #send(publish: Publish, node: ClusterNode): void {
    const attempt: Attempt = {
      publish,
      node,
      life: node.life,
      deadline: this.#now + DEADLINE_STEPS,
      isOver: false,
    };
    this.#attempts.push(attempt);
    this.#oracle.onSent(publish);
    node.shard?.publish(publish, (outcome) => {
      // Whoever gave up hears nothing any more; an acknowledgement is checked where it is given.
      if (attempt.isOver) {
        return;
      }
      attempt.isOver = true;
      if (outcome.kind === 'none') {
        this.#oracle.onNone(publish);
        this.#onLost(publish);
      } else {
        this.#onAcked(publish);
      }
    });
  }

  #producerOf(publish: Publish): Producer | undefined {
    return this.#producers.find(({ name }) => name === publish.producer);
  }

  #onLost(publish: Publish): void {
    const producer = this.#producerOf(publish);
    if (producer?.waiting.includes(publish)) {
      producer.node = null;
      producer.retryAt = this.#now + RETRY_STEPS;
    }
  }

  #onAcked(publish: Publish): void {
    const producer = this.#producerOf(publish);
    const at = producer?.waiting.indexOf(publish) ?? -1;
    if (producer !== undefined && at >= 0) {
      producer.waiting.splice(at, 1);
      producer.sent -= at < producer.sent ? 1 : 0;
    }
  }

  finish(): void {
    const left = this.#producers.filter((producer) => producer.waiting.length > 0);
    if (left.length > 0) {
      throw new SafetyViolation(`producers still wait at the end: ${this.describe()}`);
    }
  }
}
