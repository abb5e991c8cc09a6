/** What a broker has promised so far, and whether it kept it. Shares no code with the broker: bodies say themselves who sent them, and as which. */

/** Consecutive ids that are stored together, each with its label; of a void none. */
export interface StoredRow {
  readonly base: number;
  readonly count: number;
  readonly kind: 'data' | 'void';
  readonly labels: readonly string[];
  /** Log time, in ms; of no account for a void. */
  readonly publishedAt: number;
}

/** What is stored, in the order of the ids; null where that cannot be looked at now. */
export type StoreLook = (subject: string) => readonly StoredRow[] | null;

/** A body is "<", this, ";" and padding. `n` rises by one for each message of a producer to a subject. */
export function labelOf(producer: string, subject: string, n: number): string {
  return `${producer}/${subject}/${n}`;
}

/** Of a body. */
export function labelIn(body: string): string {
  return body.slice(1, body.indexOf(';'));
}

const LABELS = /<([a-z]+\d+\/[\w.]+\/\d+);/g;

const VOID = 'void';
/** What Fetch may not say of a message that is there, however much goes wrong. */
const FINAL = new Set(['ID_NOT_FOUND', 'ID_VOID', 'ID_EXPIRED', 'ID_TRIMMED', 'DATA_LOSS', 'SUBJECT_NOT_FOUND']);
/** These know no order: calls that are on their way together. */
const UNORDERED = /^u/;

export class Violation extends Error {
  override name = 'Violation';
}

function hold(holds: boolean, what: () => string): void {
  if (!holds) throw new Violation(what());
}

interface Known {
  readonly label: string;
  readonly how: string;
}

export class BrokerOracle {
  readonly #look: StoreLook;
  /** By subject and id: what somebody was told of it. */
  readonly #known = new Map<string, Map<number, Known>>();
  /** By subject and id: its log time, in ms, as somebody was told. */
  readonly #times = new Map<string, Map<number, number>>();
  readonly #acked = new Map<string, string>();
  /** Were refused as if they had never been sent. */
  readonly #refused = new Set<string>();
  readonly #unknown = new Set<string>();
  /** Lowest first id that was ever asked for, or told. */
  readonly #trimmed = new Map<string, number>();
  readonly #retained = new Map<string, number>();
  /** Producers without an id. */
  readonly #plain = new Set<string>();
  readonly #last = new Map<string, number>();
  acked = 0;
  refused = 0;
  unknown = 0;
  delivered = 0;

  constructor(look: StoreLook) {
    this.#look = look;
  }

  isPlain(producer: string): void {
    this.#plain.add(producer);
  }

  /** What somebody was told of, for another look. */
  ids(subject: string): number[] {
    return [...(this.#known.get(subject)?.keys() ?? [])];
  }

  /** Ids below may be gone from now on. */
  trimmedTo(subject: string, first: number): void {
    this.#trimmed.set(subject, Math.max(first, this.#trimmed.get(subject) ?? 1));
  }

  /** Grows with everything that comes to its end, or to somebody. */
  get progress(): number {
    return this.acked + this.refused + this.unknown + this.delivered;
  }

  /** The last id that anybody was told of. */
  lastOf(subject: string): number {
    return this.#last.get(subject) ?? 0;
  }

  /** By retention, as the log has it: later it may be known better. */
  retainedFrom(subject: string, first: number): void {
    this.#retained.set(subject, first);
  }

  firstOf(subject: string): number {
    return Math.max(this.#trimmed.get(subject) ?? 1, this.#retained.get(subject) ?? 1);
  }

  stored(subject: string, id: number, label: string): void {
    this.acked += 1;
    const earlier = this.#acked.get(label);
    hold(earlier === undefined, () => `${label} was acknowledged twice, as ${earlier} and ${id}`);
    this.#acked.set(label, `${subject} ${id}`);
    this.#learn(subject, id, label, 'acknowledged');
    const rows = this.#look(subject);
    if (rows === null) return;
    const row = rows.find(({ base, count }) => base <= id && id < base + count);
    const found = row?.labels[id - row.base];
    const isGone = row === undefined && id < this.firstOf(subject);
    hold(found === label || isGone, () => `${label} is acknowledged as ${id}, the store has ${found} there`);
  }

  failed(label: string, outcome: 'none' | 'unknown'): void {
    if (outcome === 'none') {
      this.refused += 1;
      this.#refused.add(label);
    } else {
      this.unknown += 1;
      this.#unknown.add(label);
    }
  }

  /** An id was given and will never have a message. */
  voided(subject: string, id: number): void {
    this.#learn(subject, id, VOID, 'given without a message');
  }

  /** A call for one message was answered: with its label, or why there is none. */
  fetched(subject: string, id: number, label: string | null, reason: string | null): void {
    if (label !== null) {
      hold(!this.#refused.has(label), () => `${label} was fetched, and had been refused with the outcome none`);
      this.#learn(subject, id, label, 'fetched');
      return;
    }
    const told = this.#known.get(subject)?.get(id);
    const isThere = told !== undefined && told.label !== VOID && id >= this.firstOf(subject);
    const isPassing = reason === null || !FINAL.has(reason);
    hold(isPassing || !isThere, () => `${subject} ${id} was ${told?.how}, and Fetch says ${reason}`);
    hold(reason !== 'ID_TRIMMED' || id < this.firstOf(subject), () => `${subject} ${id} was never trimmed`);
    hold(reason !== 'DATA_LOSS', () => `Fetch of ${subject} ${id} says DATA_LOSS`);
  }

  wasDelivered(subject: string, id: number, label: string, by: string): void {
    this.delivered += 1;
    hold(!this.#refused.has(label), () => `${by} was given ${label}, which was refused with the outcome none`);
    this.#learn(subject, id, label, `delivered to ${by}`);
  }

  /** A message came with this log time. */
  wasPublished(subject: string, id: number, publishedAt: number): void {
    const times = this.#times.get(subject) ?? new Map<number, number>();
    this.#times.set(subject, times);
    const told = times.get(id);
    if (told === undefined) times.set(id, publishedAt);
    hold(told === undefined || told === publishedAt, () => `${subject} ${id} is of ${publishedAt}, and was of ${told}`);
  }

  /** When all is quiet: what is stored, each once, in the order in which each producer sent it. `head` of the log. */
  judge(subject: string, head: number, rows: readonly StoredRow[]): void {
    const known = this.#known.get(subject) ?? new Map<number, Known>();
    const first = this.firstOf(subject);
    const seen = new Map<string, number>();
    const lastOf = new Map<string, number>();
    let next = 1;
    let latest = 0;
    for (const row of rows) {
      hold(row.base >= next, () => `${subject}: rows overlap at ${row.base}`);
      for (let id = next; id < row.base; id++) {
        hold(id < first, () => `${subject}: ${id} is neither stored nor void, and ${head} ids were given`);
      }
      next = row.base + row.count;
      if (row.kind === 'void') {
        for (let id = row.base; id < next; id++) {
          const told = known.get(id);
          hold(
            told === undefined || told.label === VOID,
            () => `${subject}: ${id} is void, and ${told?.label} was ${told?.how}`,
          );
        }
        continue;
      }
      const { publishedAt } = row;
      // A start at a time means all from one id on, and nothing before.
      hold(publishedAt >= latest, () => `${subject}: ${row.base} is of ${publishedAt}, behind one of ${latest}`);
      latest = publishedAt;
      row.labels.forEach((label, i) => {
        const id = row.base + i;
        if (id < first) return;
        const before = seen.get(label);
        hold(before === undefined, () => `${label} is stored twice, as ${before} and ${id}`);
        seen.set(label, id);
        hold(!this.#refused.has(label), () => `${label} is stored as ${id}, and was refused with the outcome none`);
        this.wasPublished(subject, id, publishedAt);
        const told = known.get(id);
        hold(
          told === undefined || told.label === label,
          () => `${subject}: ${id} is ${label}, and ${told?.label} was ${told?.how}`,
        );
        const [producer, , n] = label.split('/') as [string, string, string];
        // Of a producer without an id nobody can say which of its streams came first: what was in the dark may come late.
        if (UNORDERED.test(label) || (this.#unknown.has(label) && this.#plain.has(producer))) return;
        const last = lastOf.get(producer) ?? 0;
        hold(Number(n) > last, () => `${label} has the id ${id}, behind ${producer}'s number ${last}`);
        lastOf.set(producer, Number(n));
      });
    }
    hold(next - 1 <= head, () => `${subject}: the store goes to ${next - 1}, the log to ${head}`);
    for (let id = next; id <= head; id++) hold(id < first, () => `${subject}: ${id} of ${head} is not there`);
    for (const [id, told] of known) {
      const isThere = id < first || told.label === VOID || seen.get(told.label) === id;
      hold(isThere, () => `${subject}: ${told.label} was ${told.how} as ${id}, and is not there`);
    }
  }

  /** Ids with a message, from `from` on, that must be readable; as far as that can be looked at, else those that anybody was told of. */
  idsOf(subject: string, from: number): number[] {
    const start = Math.max(from, this.firstOf(subject));
    const rows = this.#look(subject);
    if (rows === null) {
      const known = [...(this.#known.get(subject) ?? [])];
      return known.filter(([id, { label }]) => id >= start && label !== VOID).map(([id]) => id);
    }
    return rows.flatMap(({ base, labels }) => labels.map((_, i) => base + i)).filter((id) => id >= start);
  }

  /** The same of those that were published then or later, by log time; as far as that was ever told. */
  idsSince(subject: string, ms: number): number[] {
    const rows = this.#look(subject);
    const times = this.#times.get(subject);
    if (rows === null) return this.idsOf(subject, 1).filter((id) => (times?.get(id) ?? 0) >= ms);
    const first = this.firstOf(subject);
    const late = rows.filter(({ publishedAt }) => publishedAt >= ms);
    return late.flatMap(({ base, labels }) => labels.map((_, i) => base + i)).filter((id) => id >= first);
  }

  #learn(subject: string, id: number, label: string, how: string): void {
    const ids = this.#known.get(subject) ?? new Map<number, Known>();
    this.#known.set(subject, ids);
    const told = ids.get(id);
    this.#last.set(subject, Math.max(id, this.lastOf(subject)));
    if (told === undefined) ids.set(id, { label, how });
    hold(
      told === undefined || told.label === label,
      () => `${subject} ${id}: ${label} ${how}, and ${told?.label} ${told?.how}`,
    );
  }
}

/** Of the messages of a stored batch. */
export function labelsIn(bytes: Buffer, count: number): string[] {
  const labels = [...bytes.toString('latin1').matchAll(LABELS)].map((match) => match[1] as string);
  hold(labels.length === count, () => `a row of ${count} messages has ${labels.length}`);
  return labels;
}
