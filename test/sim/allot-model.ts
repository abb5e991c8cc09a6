import type { AllotLimits } from '../../src/allot/allot-state.ts';
import type { Command, Origin, Part } from '../unit/allot-rig.ts';

type State = 'OPEN' | 'STORED' | 'REVOKED' | 'VOID';

interface Allotment {
  readonly subject: string;
  readonly base: number;
  readonly count: number;
  readonly node: string;
  readonly incarnation: number;
  readonly shard: number;
  state: State;
}

interface Subject {
  readonly allotments: Allotment[];
  /** Void for ever, by recover: [from, to], and everything below is the store's business. */
  readonly start: number;
  readonly voidFrom: number;
  first: number;
  everExpires: boolean;
}

interface Entry {
  readonly first: number;
  readonly count: number;
  readonly checksum: number;
  readonly allotment: Allotment;
}

interface ProducerModel {
  lastPublish: number;
  last: number;
  readonly sequences: Map<number, Entry>;
}

const DAY = 24 * 3600 * 1000;
const WINDOW = 1024;

/**
 * The rules of design section 7 written down as plainly as possible: nothing is ever merged, freed or indexed, and everything is found by
 * looking at all there is. Answers are the lines that the rig's transcript writes.
 */
export class AllotModel {
  readonly limits: AllotLimits;
  readonly subjects = new Map<string, Subject>();
  readonly producers = new Map<string, ProducerModel>();
  readonly nodes = new Map<string, { readonly number: number; incarnation: number }>();
  time = 0;

  constructor(limits: AllotLimits) {
    this.limits = limits;
  }

  apply(time: number, origin: Origin, run: readonly Command[]): string[] {
    this.time = time;
    return run.flatMap((command) => this.#command(origin, command));
  }

  head(name: string): number {
    const subject = this.subjects.get(name);
    if (subject === undefined) return 0;
    return subject.allotments.reduce((head, each) => Math.max(head, each.base + each.count - 1), subject.start);
  }

  settled(name: string): number {
    const subject = this.subjects.get(name);
    if (subject === undefined) return 0;
    const waiting = subject.allotments.find((each) => each.state === 'OPEN' || each.state === 'REVOKED');
    return waiting === undefined ? this.head(name) : waiting.base - 1;
  }

  verdict(name: string, id: number): string {
    const subject = this.subjects.get(name);
    if (subject === undefined) return 'no subject';
    if (id < 1 || id > this.head(name)) return 'UNKNOWN';
    if (id <= this.settled(name)) return id >= subject.voidFrom && id <= subject.start ? 'VOID' : 'SETTLED';
    return this.#holder(subject, id)?.state ?? 'no allotment';
  }

  get open(): number {
    return [...this.subjects.values()].flatMap((each) => each.allotments).filter((each) => each.state === 'OPEN')
      .length;
  }

  #holder(subject: Subject, id: number): Allotment | undefined {
    return subject.allotments.find((each) => each.base <= id && id < each.base + each.count);
  }

  #command(origin: Origin, command: Command): string[] {
    switch (command.do) {
      case 'open':
        return [this.#open(origin, command)];
      case 'stored':
        return [this.#close(command.subject, command.base, 'OPEN', 'STORED')];
      case 'void':
        return [this.#close(command.subject, command.base, 'REVOKED', 'VOID')];
      case 'revoke':
        return [this.#close(command.subject, command.base, 'OPEN', 'REVOKED')];
      case 'revoke-behind':
        return this.#revokeBehind(command.subject, command.base);
      case 'trim': {
        const subject = this.subjects.get(command.subject);
        if (subject === undefined) return [`${command.subject} first 0`];
        subject.first = Math.max(subject.first, Math.min(command.first, this.settled(command.subject) + 1));
        return [`${command.subject} first ${subject.first}`];
      }
      case 'node-started':
        return this.#nodeStarted(origin, command.keepOpen);
      case 'revoke-node':
        return this.#revokeAll(
          (each) => each.node === command.node && (command.shard === undefined || each.shard === command.shard),
        );
      case 'recovered':
        this.subjects.set(command.subject, {
          allotments: [],
          start: command.head,
          voidFrom: command.storeHighest + 1,
          first: 1,
          everExpires: true,
        });
        return [];
      default:
        throw new Error(`the model does not know ${command.do}`);
    }
  }

  #nodeStarted(origin: Origin, keepOpen: boolean): string[] {
    const node = this.nodes.get(origin.node) ?? { number: this.nodes.size, incarnation: 0 };
    node.incarnation = origin.incarnation;
    this.nodes.set(origin.node, node);
    const lines = keepOpen
      ? []
      : this.#revokeAll((each) => each.node === origin.node && each.incarnation !== origin.incarnation);
    return [...lines, `node ${node.number}/${origin.incarnation} started, ${lines.length} revoked`];
  }

  #revokeAll(which: (allotment: Allotment) => boolean): string[] {
    const lines: string[] = [];
    for (const subject of this.subjects.values()) {
      for (const each of subject.allotments) {
        if (each.state !== 'OPEN' || !which(each)) continue;
        each.state = 'REVOKED';
        lines.push(`${each.subject} ${each.base}+${each.count} REVOKED`);
      }
    }
    return lines;
  }

  /** Those behind only if it was open until now. */
  #revokeBehind(name: string, base: number): string[] {
    const first = this.subjects.get(name)?.allotments.find((each) => each.base === base);
    const wasOpen = first?.state === 'OPEN';
    const line = this.#close(name, base, 'OPEN', 'REVOKED');
    if (!wasOpen) return [line];
    const behind = this.#revokeAll(
      (each) =>
        each.subject === name && each.base > base && each.node === first.node && each.incarnation === first.incarnation,
    );
    return [line, ...behind];
  }

  #close(name: string, base: number, from: State, to: State): string {
    const verdict = this.verdict(name, base);
    const subject = this.subjects.get(name);
    const holder = subject === undefined ? undefined : this.#holder(subject, base);
    if (verdict === 'no subject') return `${name} ${base}+0 UNKNOWN not applied`;
    if ((verdict !== 'OPEN' && verdict !== 'REVOKED') || holder === undefined) {
      return `${name} ${base}+0 ${verdict}${verdict === to ? '' : ' not applied'}`;
    }
    if (holder.base !== base) return `${name} ${base}+0 UNKNOWN not applied`;
    if (holder.state === from) holder.state = to;
    return `${name} ${base}+${holder.count} ${holder.state}${holder.state === to ? '' : ' not applied'}`;
  }

  #open(origin: Origin, open: Extract<Command, { do: 'open' }>): string {
    const request = `${open.shard ?? 0}.${open.counter ?? 0}`;
    const node = this.nodes.get(origin.node);
    if (node === undefined || node.incarnation !== origin.incarnation) return `refused ${request} NOT_READY`;
    const head = this.head(open.subject);
    const obstacle = this.#obstacle(origin, open, head);
    const parts: readonly Part[] = open.parts ?? [{ count: open.count ?? 1 }];
    // The allotment grows with the parts that get ids; whether it exists is known at the end.
    const ids = { allotted: 0 };
    const allotment = {
      subject: open.subject,
      base: head + 1,
      get count() {
        return ids.allotted;
      },
      node: origin.node,
      incarnation: origin.incarnation,
      shard: open.shard ?? 0,
      state: 'OPEN' as State,
    };
    const answers = parts.map((part) => this.#part(open.subject, part, head, obstacle, ids, allotment));
    if (ids.allotted > 0) this.#subject(open.subject, (open.expiresMax ?? 0) > 0).allotments.push(allotment);
    const base = ids.allotted > 0 ? head + 1 : 0;
    if (open.parts !== undefined) {
      return `parts ${request} ${base}+${ids.allotted} at ${this.time}: ${answers.join(', ')}`;
    }
    const refusal = (answers[0] as string).replace('REFUSED ', '');
    return base === 0 ? `refused ${request} ${refusal}` : `opened ${request} ${base}+${ids.allotted} at ${this.time}`;
  }

  #obstacle(origin: Origin, open: Extract<Command, { do: 'open' }>, head: number): string | null {
    if (open.expectedHead !== undefined && open.expectedHead !== head) return 'HEAD_MISMATCH';
    if (!this.subjects.has(open.subject) && this.subjects.size >= this.limits.subjectsMax) return 'SUBJECTS_FULL';
    const unresolved = [...this.subjects.values()]
      .flatMap((each) => each.allotments)
      .filter((each) => each.node === origin.node && (each.state === 'OPEN' || each.state === 'REVOKED'));
    return unresolved.length >= this.limits.openPerNodeMax ? 'ALLOTMENTS_FULL' : null;
  }

  #subject(name: string, expires: boolean): Subject {
    const subject = this.subjects.get(name) ?? { allotments: [], start: 0, voidFrom: 1, first: 1, everExpires: false };
    subject.everExpires ||= expires;
    this.subjects.set(name, subject);
    return subject;
  }

  #part(
    subject: string,
    part: Part,
    head: number,
    obstacle: string | null,
    ids: { allotted: number },
    allotment: Allotment,
  ): string {
    const known = part.producer === undefined ? null : this.#known(subject, part);
    if (known !== null) return known;
    if (obstacle !== null) return `REFUSED ${obstacle}`;
    if (BigInt(head) + BigInt(ids.allotted) + BigInt(part.count) > 2n ** 53n - 1n) return 'REFUSED IDS_EXHAUSTED';
    const first = head + ids.allotted + 1;
    if (part.producer !== undefined) {
      const producer = this.#producer(part.producer);
      if (producer === undefined) {
        const alive = [...this.producers.values()].filter((each) => this.time - each.lastPublish < DAY);
        if (alive.length >= this.limits.producersMax) return 'REFUSED PRODUCERS_FULL';
      }
      this.#remember(part, { first, count: part.count, checksum: part.checksum ?? 0, allotment });
    }
    ids.allotted += part.count;
    return `ALLOTTED ${first}`;
  }

  #producer(name: string): ProducerModel | undefined {
    const producer = this.producers.get(name);
    return producer !== undefined && this.time - producer.lastPublish < DAY ? producer : undefined;
  }

  /** The answer to a part whose sequence decides it, or null if it is new. */
  #known(subject: string, part: Part): string | null {
    const producer = this.#producer(part.producer as string);
    const sequence = part.sequence as number;
    if (producer === undefined) return sequence === 1 ? null : 'REFUSED SEQUENCE_UNKNOWN';
    if (sequence <= producer.last - WINDOW) return 'REFUSED SEQUENCE_UNKNOWN';
    const entry = producer.sequences.get(sequence);
    if (entry === undefined || entry.allotment.state === 'REVOKED' || entry.allotment.state === 'VOID') return null;
    const same =
      entry.allotment.subject === subject && entry.count === part.count && entry.checksum === (part.checksum ?? 0);
    if (!same) return 'REFUSED SEQUENCE_REUSED';
    producer.lastPublish = this.time;
    return entry.allotment.state === 'STORED'
      ? `STORED ${entry.first}`
      : `WAITS ${entry.first}@${entry.allotment.base}`;
  }

  #remember(part: Part, entry: Entry): void {
    const name = part.producer as string;
    const producer = this.#producer(name) ?? { lastPublish: 0, last: 0, sequences: new Map<number, Entry>() };
    producer.lastPublish = this.time;
    producer.last = Math.max(producer.last, part.sequence as number);
    producer.sequences.set(part.sequence as number, entry);
    this.producers.set(name, producer);
  }
}
