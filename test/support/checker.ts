/**
 * Judges what clients saw of a broker against its promises. It stands outside the code: it imports nothing of it and knows only payloads,
 * subjects, ids and the order in which the test process saw things happen (its own counter, no clock).
 *
 * Use: `submit` a message, `beginAttempt`/`endAttempt` around each call for it, `openStream`/`deliver` for subscriptions, `observeFetch` for
 * reads while it runs; at the end `readBack` everything and ask `judge`.
 *
 * Payloads must differ from each other: they are how a message is recognised when it comes back. Where bodies repeat, let the payload be
 * a header and the body.
 */

/** `none` must never appear, `unknown` may or may not. */
export type AttemptResult =
  | { readonly outcome: 'ok'; readonly id: number }
  | { readonly outcome: 'none' | 'unknown'; readonly detail?: string };

export type ReadResult =
  | { readonly kind: 'message'; readonly payload: Buffer; readonly publishedAt: number; readonly id?: number }
  | { readonly kind: 'void' | 'expired' | 'trimmed' | 'absent' }
  | { readonly kind: 'failed'; readonly detail: string };

export type StreamStart = { readonly at: 'new' | 'earliest' } | { readonly at: 'id'; readonly id: number };

/** Each rule with the promise behind it. */
export const RULES = {
  'acked-readable': 'an acknowledged message can be fetched under its id, byte for byte',
  'one-payload': 'an id has one content, the same for every reader, for ever [R25]',
  dense: 'every id up to the head is a message or answered as void [S11]',
  order: 'a message that was acknowledged before another was first sent has the lower id',
  'lane-order': 'what one producer sends one after the other has rising ids',
  'log-time': 'published_at never falls with rising ids',
  'never-none': 'a message whose every attempt was answered "no effect" never appears [R27]',
  once: 'a (producer, sequence) is stored at most once, any other message at most once an attempt [R25]',
  foreign: 'nothing appears that nobody sent, and nothing under a subject that it was not sent to',
  'stream-order': 'a stream delivers rising ids, each at most once',
  'stream-gap': 'a stream misses no stored message between its start and where it stands',
  'stream-start': 'a stream delivers nothing from before its start',
  'stale-read': 'a fetch that begins after the acknowledgement finds the message',
  unreadable: 'a read is answered',
} as const;

export type Rule = keyof typeof RULES;

export interface Violation {
  readonly rule: Rule;
  readonly subject: string;
  readonly id: number;
  readonly detail: string;
}

export interface Counts {
  submissions: number;
  attempts: number;
  acked: number;
  answeredNone: number;
  unknown: number;
  /** Messages that appeared although no attempt was acknowledged: allowed, and a sign that the run was hard enough. */
  unknownStored: number;
  messages: number;
  voids: number;
  deliveries: number;
  streams: number;
  fetches: number;
}

export interface Verdict {
  readonly violations: readonly Violation[];
  readonly counts: Counts;
}

export interface SubmissionFields {
  readonly subject: string;
  readonly payload: Buffer;
  /** With a producer id (and a sequence in the request) the message may be stored once only, however often it is tried. */
  readonly producer?: string;
  readonly sequence?: number;
  /** Submissions of one lane are made one after the other and must keep that order. */
  readonly lane?: string;
}

interface Submission extends SubmissionFields {
  readonly number: number;
  /** First attempt's begin, first ok's end; on the history's own counter. Infinity until then. */
  begunAt: number;
  ackedAt: number;
  ackedId: number;
  attemptsNone: number;
  attemptsUnknown: number;
  attemptsOk: number;
  attemptsOpen: number;
}

interface Stream {
  readonly name: string;
  readonly subject: string;
  readonly start: StreamStart;
  readonly openedAt: number;
  liveAt: number;
  readonly ids: number[];
  complete: boolean;
}

/** What an id was seen to be: a submission's number, or one of these. */
const VOID = -1;
const FOREIGN = -2;
const GONE = -3;

interface Sighting {
  readonly what: number;
  readonly where: string;
}

interface SubjectRecord {
  readonly name: string;
  /** By id: the first sighting; later ones must agree. */
  readonly seen: Map<number, Sighting>;
  /** By id: time from the log. */
  readonly times: Map<number, number>;
  /** Highest id that an acknowledgement, a delivery or a read has named. */
  highest: number;
  /** Every id from 1 up to here was read back. */
  readUntil: number;
}

const VIOLATIONS_KEPT_PER_RULE = 20;
/** A read-back asks for so many ids behind the highest one it knows. */
const READ_PAST_HEAD = 4;

export class History {
  readonly #submissions: Submission[] = [];
  readonly #byPayload = new Map<string, Submission>();
  readonly #subjects = new Map<string, SubjectRecord>();
  readonly #attempts: { readonly submission: Submission; open: boolean }[] = [];
  readonly #streams: Stream[] = [];
  readonly #found = new Findings();
  #clock = 0;
  #fetches = 0;

  submit(fields: SubmissionFields): number {
    const key = fields.payload.toString('latin1');
    if (this.#byPayload.has(key)) throw new Error('checker: payloads must differ, or nothing could be told apart');
    const submission: Submission = {
      ...fields,
      number: this.#submissions.length,
      begunAt: Number.POSITIVE_INFINITY,
      ackedAt: Number.POSITIVE_INFINITY,
      ackedId: 0,
      attemptsNone: 0,
      attemptsUnknown: 0,
      attemptsOk: 0,
      attemptsOpen: 0,
    };
    this.#submissions.push(submission);
    this.#byPayload.set(key, submission);
    this.#subject(fields.subject);
    return submission.number;
  }

  /** How many there are; the next one's number. */
  get submissions(): number {
    return this.#submissions.length;
  }

  /** Call right before the request is sent. */
  beginAttempt(submission: number): number {
    const entry = at(this.#submissions, submission);
    entry.begunAt = Math.min(entry.begunAt, ++this.#clock);
    entry.attemptsOpen += 1;
    this.#attempts.push({ submission: entry, open: true });
    return this.#attempts.length - 1;
  }

  /** Call when the answer is there. An attempt that never ends counts as unknown. */
  endAttempt(attempt: number, result: AttemptResult): void {
    const entry = at(this.#attempts, attempt);
    if (!entry.open) throw new Error('checker: attempt ended twice');
    entry.open = false;
    const { submission } = entry;
    submission.attemptsOpen -= 1;
    if (result.outcome === 'ok') this.#acknowledge(submission, result.id);
    else if (result.outcome === 'none') submission.attemptsNone += 1;
    else submission.attemptsUnknown += 1;
  }

  #acknowledge(submission: Submission, id: number): void {
    submission.attemptsOk += 1;
    if (!Number.isSafeInteger(id) || id < 1) {
      this.#report('dense', submission.subject, id, 'acknowledged with an id that is none');
      return;
    }
    this.#see(this.#subject(submission.subject), id, submission.number, 'acknowledgement');
    if (submission.ackedId === 0) {
      submission.ackedId = id;
      submission.ackedAt = ++this.#clock;
    } else if (submission.ackedId !== id) {
      const rule = submission.producer === undefined ? null : 'once';
      if (rule !== null) this.#report(rule, submission.subject, id, `acknowledged before as id ${submission.ackedId}`);
    }
  }

  /** Call right before the subscription is made. */
  openStream(fields: { readonly name: string; readonly subject: string; readonly start: StreamStart }): number {
    this.#subject(fields.subject);
    this.#streams.push({
      ...fields,
      openedAt: ++this.#clock,
      liveAt: Number.POSITIVE_INFINITY,
      ids: [],
      complete: false,
    });
    return this.#streams.length - 1;
  }

  /** The server has fixed the start (response headers). */
  streamLive(stream: number): void {
    at(this.#streams, stream).liveAt = ++this.#clock;
  }

  deliver(
    stream: number,
    message: { readonly id: number; readonly payload: Buffer; readonly publishedAt: number },
  ): void {
    const entry = at(this.#streams, stream);
    const last = entry.ids.at(-1) ?? 0;
    if (message.id <= last) {
      this.#report('stream-order', entry.subject, message.id, `${entry.name}: delivered after id ${last}`);
    }
    entry.ids.push(message.id);
    const what = this.#recognise(entry.subject, message.payload, message.id, entry.name);
    this.#seeMessage(entry.subject, message.id, what, message.publishedAt, entry.name);
    if (entry.start.at === 'id' && message.id < entry.start.id) {
      this.#report('stream-start', entry.subject, message.id, `${entry.name}: started at id ${entry.start.id}`);
    }
    const submission = this.#submissions[what];
    if (entry.start.at === 'new' && submission !== undefined && submission.ackedAt < entry.openedAt) {
      this.#report(
        'stream-start',
        entry.subject,
        message.id,
        `${entry.name}: started at new, the message was there before`,
      );
    }
  }

  /** The stream was given the time to deliver everything up to the head: from now on a missing tail is a gap. */
  completeStream(stream: number): void {
    at(this.#streams, stream).complete = true;
  }

  /** Call right before a fetch; the answer goes to `observeFetch`. */
  beginFetch(): number {
    return ++this.#clock;
  }

  observeFetch(subject: string, id: number, begunAt: number, result: ReadResult): void {
    this.#fetches += 1;
    this.#observeRead(subject, id, result, 'fetch');
    if (result.kind === 'failed' || result.kind === 'message') return;
    const sighting = this.#subject(subject).seen.get(id);
    const submission = sighting === undefined ? undefined : this.#submissions[sighting.what];
    if (submission !== undefined && submission.ackedId === id && submission.ackedAt < begunAt) {
      this.#report('stale-read', subject, id, `answered ${result.kind} after it was acknowledged`);
    }
  }

  subjects(): string[] {
    return [...this.#subjects.keys()];
  }

  /** Highest id that anyone has named for the subject. */
  highestId(subject: string): number {
    return this.#subject(subject).highest;
  }

  /**
   * Reads every id of every subject from where the last call stopped (`from: 'start'`: from 1 again) to past its head. Resolves with the number of reads.
   */
  async readBack(
    read: (subject: string, id: number) => Promise<ReadResult>,
    options: { readonly from: 'start' | 'last'; readonly concurrency?: number },
  ): Promise<number> {
    let reads = 0;
    for (const record of this.#subjects.values()) {
      if (options.from === 'start') record.readUntil = 0;
      reads += await this.#readSubject(record, read, options.concurrency ?? 64);
    }
    return reads;
  }

  async #readSubject(
    record: SubjectRecord,
    read: (subject: string, id: number) => Promise<ReadResult>,
    concurrency: number,
  ): Promise<number> {
    let next = record.readUntil + 1;
    let absentFrom = Number.POSITIVE_INFINITY;
    let reads = 0;
    const worker = async (): Promise<void> => {
      // What is found moves `highest`. A few more are asked for: a message behind the first absent id would be a hole.
      while (next <= record.highest + READ_PAST_HEAD) {
        const id = next++;
        const result = await read(record.name, id);
        reads += 1;
        if (result.kind === 'absent') absentFrom = Math.min(absentFrom, id);
        else if (result.kind === 'failed') this.#report('unreadable', record.name, id, result.detail);
        this.#observeRead(record.name, id, result, 'read back');
      }
    };
    await Promise.all(Array.from({ length: concurrency }, worker));
    for (const id of record.seen.keys()) {
      if (id > absentFrom) this.#report('dense', record.name, absentFrom, `absent, though id ${id} is there`);
      if (id > absentFrom) break;
    }
    record.readUntil = Math.min(absentFrom, next) - 1;
    return reads;
  }

  #observeRead(subject: string, id: number, result: ReadResult, where: string): void {
    const record = this.#subject(subject);
    switch (result.kind) {
      case 'failed':
        return;
      case 'message': {
        if (result.id !== undefined && result.id !== id) {
          this.#report('one-payload', subject, id, `${where}: answered as id ${result.id}`);
        }
        const what = this.#recognise(subject, result.payload, id, where);
        this.#seeMessage(subject, id, what, result.publishedAt, where);
        return;
      }
      case 'void':
        this.#see(record, id, VOID, where);
        return;
      case 'expired':
      case 'trimmed':
        this.#see(record, id, GONE, `${where} (${result.kind})`);
        return;
      case 'absent':
        return;
    }
  }

  /** May be asked again and again; ids that were not read back yet count as missing. */
  judge(): Verdict {
    const found = new Findings(this.#found);
    new Judge(this.#submissions, this.#subjects, this.#streams, found).run();
    return { violations: found.list, counts: this.#counts() };
  }

  /** Highest id of the subject under which a message, not a void, was seen. */
  highestMessage(subject: string): number {
    let highest = 0;
    for (const [id, { what }] of this.#subject(subject).seen) {
      if (what >= 0 && id > highest) highest = id;
    }
    return highest;
  }

  #counts(): Counts {
    const counts: Counts = {
      submissions: this.#submissions.length,
      attempts: this.#attempts.length,
      acked: 0,
      answeredNone: 0,
      unknown: 0,
      unknownStored: 0,
      messages: 0,
      voids: 0,
      deliveries: this.#streams.reduce((sum, stream) => sum + stream.ids.length, 0),
      streams: this.#streams.length,
      fetches: this.#fetches,
    };
    for (const submission of this.#submissions) {
      if (submission.ackedId > 0) counts.acked += 1;
      else if (submission.attemptsUnknown + submission.attemptsOpen > 0) counts.unknown += 1;
      else if (submission.attemptsNone > 0) counts.answeredNone += 1;
    }
    for (const record of this.#subjects.values()) {
      for (const { what } of record.seen.values()) {
        if (what === VOID) counts.voids += 1;
        if (what < 0) continue;
        counts.messages += 1;
        if (at(this.#submissions, what).ackedId === 0) counts.unknownStored += 1;
      }
    }
    return counts;
  }

  #subject(name: string): SubjectRecord {
    let record = this.#subjects.get(name);
    if (record === undefined) {
      record = { name, seen: new Map(), times: new Map(), highest: 0, readUntil: 0 };
      this.#subjects.set(name, record);
    }
    return record;
  }

  #recognise(subject: string, payload: Buffer, id: number, where: string): number {
    const submission = this.#byPayload.get(payload.toString('latin1'));
    if (submission === undefined) {
      this.#report('foreign', subject, id, `${where}: ${payload.length} bytes that nobody sent: ${preview(payload)}`);
      return FOREIGN;
    }
    if (submission.subject !== subject) {
      this.#report('foreign', subject, id, `${where}: sent to ${submission.subject}`);
    }
    return submission.number;
  }

  #seeMessage(subject: string, id: number, what: number, publishedAt: number, where: string): void {
    const record = this.#subject(subject);
    this.#see(record, id, what, where);
    const before = record.times.get(id);
    if (before === undefined) record.times.set(id, publishedAt);
    else if (before !== publishedAt) {
      this.#report('one-payload', subject, id, `${where}: published_at ${publishedAt}, before it was ${before}`);
    }
  }

  #see(record: SubjectRecord, id: number, what: number, where: string): void {
    record.highest = Math.max(record.highest, id);
    const before = record.seen.get(id);
    if (before === undefined) {
      record.seen.set(id, { what, where });
      return;
    }
    if (before.what === what) return;
    const acked = before.what >= 0 && at(this.#submissions, before.what).ackedId === id;
    const rule = acked && what < 0 ? 'acked-readable' : 'one-payload';
    this.#report(rule, record.name, id, `${where}: ${describe(what)}, but ${before.where}: ${describe(before.what)}`);
  }

  #report(rule: Rule, subject: string, id: number, detail: string): void {
    this.#found.add(rule, subject, id, detail);
  }
}

/** Violations, a few of each rule: one defect can break a rule a thousand times. */
class Findings {
  readonly list: Violation[];
  readonly #counts: Map<Rule, number>;

  constructor(before?: Findings) {
    this.list = [...(before?.list ?? [])];
    this.#counts = new Map(before === undefined ? [] : before.#counts);
  }

  add(rule: Rule, subject: string, id: number, detail: string): void {
    const count = (this.#counts.get(rule) ?? 0) + 1;
    this.#counts.set(rule, count);
    if (count <= VIOLATIONS_KEPT_PER_RULE) this.list.push({ rule, subject, id, detail });
  }
}

/** The rules that need the whole history. */
class Judge {
  readonly #submissions: readonly Submission[];
  readonly #subjects: ReadonlyMap<string, SubjectRecord>;
  readonly #streams: readonly Stream[];
  readonly #found: Findings;

  constructor(
    submissions: readonly Submission[],
    subjects: ReadonlyMap<string, SubjectRecord>,
    streams: readonly Stream[],
    found: Findings,
  ) {
    this.#submissions = submissions;
    this.#subjects = subjects;
    this.#streams = streams;
    this.#found = found;
  }

  run(): void {
    const bySubject = Map.groupBy(this.#submissions, (submission) => submission.subject);
    for (const record of this.#subjects.values()) {
      const submissions = bySubject.get(record.name) ?? [];
      this.#judgeLog(record);
      this.#judgeAcknowledged(record, submissions);
      this.#judgeOrder(submissions);
      this.#judgeLanes(submissions);
    }
    this.#judgeAppearances();
    for (const stream of this.#streams) this.#judgeStream(stream, bySubject.get(stream.subject) ?? []);
  }

  #judgeLog(record: SubjectRecord): void {
    let latest = 0;
    for (let id = 1; id <= record.highest; id++) {
      if (!record.seen.has(id))
        this.#found.add('dense', record.name, id, `never seen, though id ${record.highest} was given`);
      const time = record.times.get(id) ?? latest;
      if (time < latest) this.#found.add('log-time', record.name, id, `published_at ${time} after ${latest}`);
      latest = time;
    }
  }

  #judgeAcknowledged(record: SubjectRecord, submissions: readonly Submission[]): void {
    for (const submission of submissions) {
      if (submission.ackedId === 0 || submission.ackedId <= record.readUntil) continue;
      this.#found.add('acked-readable', record.name, submission.ackedId, 'acknowledged, and not there when read back');
    }
  }

  /** Real-time order: sorted by begin, each must be above the highest id that was acknowledged before it began. */
  #judgeOrder(submissions: readonly Submission[]): void {
    const acked = submissions.filter((submission) => submission.ackedId > 0);
    const byEnd = acked.toSorted((a, b) => a.ackedAt - b.ackedAt);
    let ended = 0;
    let highest = 0;
    for (const submission of acked.toSorted((a, b) => a.begunAt - b.begunAt)) {
      for (; ended < byEnd.length && at(byEnd, ended).ackedAt < submission.begunAt; ended++) {
        highest = Math.max(highest, at(byEnd, ended).ackedId);
      }
      if (submission.ackedId > highest) continue;
      const detail = `first sent after id ${highest} was acknowledged`;
      this.#found.add('order', submission.subject, submission.ackedId, detail);
    }
  }

  #judgeLanes(submissions: readonly Submission[]): void {
    const last = new Map<string, number>();
    for (const { lane, ackedId, subject } of submissions) {
      if (lane === undefined || ackedId === 0) continue;
      const before = last.get(lane) ?? 0;
      if (ackedId <= before)
        this.#found.add('lane-order', subject, ackedId, `${lane}: its message before has id ${before}`);
      last.set(lane, ackedId);
    }
  }

  #judgeAppearances(): void {
    const appearances = new Map<number, number>();
    for (const record of this.#subjects.values()) {
      for (const [id, { what }] of record.seen) {
        if (what < 0) continue;
        const submission = at(this.#submissions, what);
        const count = (appearances.get(what) ?? 0) + 1;
        appearances.set(what, count);
        const possible = submission.attemptsOk + submission.attemptsUnknown + submission.attemptsOpen;
        const allowed = submission.producer === undefined ? possible : Math.min(1, possible);
        if (possible === 0) {
          this.#found.add(
            'never-none',
            record.name,
            id,
            `all ${submission.attemptsNone} attempts were answered "none"`,
          );
        } else if (count > allowed) {
          const who =
            submission.producer === undefined ? 'no producer' : `${submission.producer} ${submission.sequence}`;
          this.#found.add('once', record.name, id, `${who}: appears ${count} times, ${allowed} allowed`);
        }
      }
    }
  }

  #judgeStream(stream: Stream, submissions: readonly Submission[]): void {
    const record = this.#subjects.get(stream.subject);
    if (record === undefined) return;
    const delivered = new Set(stream.ids);
    const last = stream.ids.at(-1) ?? 0;
    const until = stream.complete ? record.highest : last;
    for (let id = firstOwed(stream, submissions); id <= until; id++) {
      const what = record.seen.get(id)?.what ?? VOID;
      if (what >= 0 && !delivered.has(id)) {
        this.#found.add('stream-gap', stream.subject, id, `${stream.name}: not delivered, stands at id ${last}`);
      }
    }
  }
}

/** The lowest id that the stream must deliver. For `new`: of what was first sent after it was live, or what it delivered first. */
function firstOwed(stream: Stream, submissions: readonly Submission[]): number {
  if (stream.start.at === 'id') return stream.start.id;
  if (stream.start.at === 'earliest') return 1;
  let lowest = stream.ids[0] ?? Number.POSITIVE_INFINITY;
  for (const submission of submissions) {
    if (submission.ackedId > 0 && submission.begunAt > stream.liveAt) lowest = Math.min(lowest, submission.ackedId);
  }
  return lowest;
}

function at<T>(list: readonly T[], index: number): T {
  const item = list[index];
  if (item === undefined) throw new Error(`checker: no entry ${index}`);
  return item;
}

function describe(what: number): string {
  if (what === VOID) return 'void';
  if (what === FOREIGN) return 'a foreign payload';
  return what === GONE ? 'gone' : `message ${what}`;
}

function preview(payload: Buffer): string {
  return JSON.stringify(payload.subarray(0, 40).toString('latin1'));
}
