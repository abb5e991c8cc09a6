/**
 * A producer in a process of its own that keeps a journal and kills itself where it is told to: `node producer-child.ts PLAN`, PLAN being a
 * ProducerPlan as JSON. Begun again with the same journal it goes on where it was. See producer-campaign.ts.
 */
import { appendFileSync, existsSync, readFileSync, writeSync } from 'node:fs';
import { type Client, type ClientError, connect, type Publisher } from '../../src/client/index.ts';
import { frameOf } from '../../src/grpc/frame.ts';
import { PublishStreamRequest, PublishStreamResponse } from '../../src/grpc/gen/broker/v1/producer.ts';
import { PUBLISH_STREAM_PATH, RawStream } from '../support/raw-stream.ts';

export interface ProducerPlan {
  readonly kind: 'raw' | 'client';
  readonly address: string;
  readonly journal: string;
  readonly producerId: string;
  readonly subjects: readonly string[];
  /** Where it dies, and on which visit to that place, from 1; '': it ends by itself when it has nothing left to do. */
  readonly dieAt: string;
  readonly onVisit: number;
}

/** A line of the journal, or of standard output (`saw`). Batches of the client are single messages, numbered by subject. */
export type ProducerLine =
  | {
      readonly kind: 'draft';
      readonly key: string;
      readonly subject: string;
      readonly bodies: readonly string[];
      /** It is to be refused for itself, so that those behind it may be stored before it. */
      readonly isRefused?: boolean;
    }
  | { readonly kind: 'stored' | 'saw'; readonly key: string; readonly firstId: number };

/** A producer that is to die does so long before it has made this many batches. */
const BATCHES_MAX = 3_000;
/** One that ends by itself, or dies at its end, makes so many more. */
const LAST_BATCHES = 12;
const ENDS = ['', 'half-closed', 'answered after half-close', 'closing'];
/** Of a producer that is to die at a refusal every so many batches insist on a last id that no subject has. */
const REFUSED_EVERY = 5;
const NO_HEAD = 2 ** 40;
const RAW_IN_FLIGHT = 6;
const CLIENT_IN_FLIGHT = 24;
const NOT_REACHED = 3;

type Draft = Omit<Extract<ProducerLine, { readonly kind: 'draft' }>, 'kind'>;

/** What the producer knows of itself over all its lives: what it has made, and what it has been told is stored. */
class Journal {
  /** Made and not known to be stored, the oldest first. */
  readonly pending = new Map<string, Draft>();
  readonly #path: string;
  #drafts = 0;
  readonly #stored = new Map<string, number>();

  constructor(path: string) {
    this.#path = path;
    if (!existsSync(path)) return;
    for (const line of readFileSync(path, 'utf8').split('\n')) if (line !== '') this.#take(JSON.parse(line));
  }

  get drafts(): number {
    return this.#drafts;
  }

  /** Highest id that is known of the subject. */
  lastId(subject: string): number {
    return this.#stored.get(subject) ?? 0;
  }

  append(line: ProducerLine): void {
    appendFileSync(this.#path, `${JSON.stringify(line)}\n`);
    this.#take(line);
  }

  #take(line: ProducerLine): void {
    if (line.kind === 'draft') {
      this.#drafts += 1;
      this.pending.set(line.key, line);
    } else if (line.kind === 'stored') {
      const draft = this.pending.get(line.key);
      if (draft === undefined) throw new Error(`${line.key} is stored and was not made`);
      const lastId = line.firstId + draft.bodies.length - 1;
      this.#stored.set(draft.subject, Math.max(this.lastId(draft.subject), lastId));
      this.pending.delete(line.key);
    }
  }
}

const plan = JSON.parse(process.argv[2] ?? '') as ProducerPlan;
const journal = new Journal(plan.journal);
const bornWith = journal.drafts;
let visits = 0;

/** The process ends here, as by kill -9, if that is the plan. */
function step(name: string): void {
  if (name !== plan.dieAt || ++visits !== plan.onVisit) return;
  process.kill(process.pid, 'SIGKILL');
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
}

/** There is another batch to make. */
function hasMore(): boolean {
  return journal.drafts - bornWith < (ENDS.includes(plan.dieAt) ? LAST_BATCHES : BATCHES_MAX);
}

function say(line: ProducerLine): void {
  writeSync(1, `${JSON.stringify(line)}\n`);
}

/** Speaks broker.v1.Producer/PublishStream by itself. Keys are sequences. */
async function runRaw(): Promise<void> {
  const { pending } = journal;
  step('connected');
  using stream = new RawStream(plan.address, PUBLISH_STREAM_PATH);
  let opened = Promise.withResolvers<void>();
  let progress = Promise.withResolvers<void>();
  let lastSent = 0;
  let isHalfClosed = false;
  const inFlight = new Set<number>();
  const toBeRefused = new Set<number>();
  stream.onMessage = (bytes) => {
    if (lastSent > 0) step('answer came');
    if (isHalfClosed) step('answered after half-close');
    const { opened: isOpened, acknowledged, results } = PublishStreamResponse.decode(bytes);
    if (isOpened !== undefined) opened.resolve();
    const stored: { readonly sequence: number; readonly firstId: number }[] = [];
    for (const { sequence, firstId, error } of results) {
      if (error === undefined) {
        say({ kind: 'saw', key: String(sequence), firstId });
        stored.push({ sequence, firstId });
        continue;
      }
      const draft = pending.get(String(sequence));
      if (draft === undefined || error.reason !== 'HEAD_MISMATCH' || !toBeRefused.delete(sequence))
        throw new Error(`batch ${sequence} is refused: ${error.reason}`);
      step('refusal came');
      void send(draft);
    }
    if (results.length > 0) step('answer read');
    for (const { sequence, firstId } of stored) {
      inFlight.delete(sequence);
      journal.append({ kind: 'stored', key: String(sequence), firstId });
      step('result in the journal');
    }
    if (acknowledged > 0 && acknowledged < lastSent) step('some acknowledged');
    progress.resolve();
  };
  void stream.ended.then(({ status, reason }) => {
    if (status === 0) return;
    opened.reject(new Error(`the stream ended: ${status} ${reason}`));
    progress.reject(new Error(`the stream ended: ${status} ${reason}`));
  });
  const first = pending.keys().next().value;
  const firstSequence = first === undefined ? journal.drafts + 1 : Number(first);
  const open = { producerId: plan.producerId, firstSequence };
  await stream.send(PublishStreamRequest.encode({ open, batches: [] }).finish());
  step('open sent');
  await opened.promise;
  opened = Promise.withResolvers<void>();
  step('opened');
  const send = async ({ key, subject, bodies }: Draft): Promise<void> => {
    const sequence = Number(key);
    const records = bodies.map((body) => ({ body: Buffer.from(body), headers: [], expirationSeconds: 0 }));
    const expectedLastId = toBeRefused.has(sequence) ? NO_HEAD : undefined;
    const batch = { subject, sequence, records: { records }, expectedLastId };
    const frame = frameOf(PublishStreamRequest.encode({ open: undefined, batches: [batch] }).finish());
    lastSent = sequence;
    inFlight.add(sequence);
    const half = frame.length >> 1;
    if (plan.dieAt === 'half a frame sent') await stream.write(frame.subarray(0, half));
    step('half a frame sent');
    await stream.write(plan.dieAt === 'half a frame sent' ? frame.subarray(half) : frame);
  };
  for (const draft of [...pending.values()]) {
    await send(draft);
    step('sent again');
  }
  while (hasMore() || inFlight.size > 0) {
    while (hasMore() && inFlight.size < RAW_IN_FLIGHT) {
      const draft = newRawDraft();
      journal.append({ kind: 'draft', ...draft });
      step('in the journal');
      if (draft.isRefused) toBeRefused.add(Number(draft.key));
      await send(draft);
      step('frame sent');
    }
    // With batches on their way, if it is to die behind it.
    if (!hasMore() && plan.dieAt !== '') break;
    await progress.promise;
    progress = Promise.withResolvers<void>();
  }
  stream.halfClose();
  isHalfClosed = true;
  await new Promise(setImmediate);
  step('half-closed');
  await stream.ended;
}

function newRawDraft(): Draft {
  const sequence = journal.drafts + 1;
  const subject = plan.subjects[sequence % plan.subjects.length] as string;
  const bodies = Array.from({ length: 1 + (sequence % 3) }, (_, part) => `${plan.producerId} ${sequence}.${part}`);
  const isRefused = plan.dieAt === 'refusal came' && sequence % REFUSED_EVERY === 0;
  return { key: String(sequence), subject, bodies, ...(isRefused && { isRefused }) };
}

/** Publishes with the TypeScript client. Keys are `SUBJECT NUMBER`; the id of a message is not known before it is stored. */
async function runClient(): Promise<void> {
  await using client = connect(plan.address);
  const publisher = client.publisher({ producerId: plan.producerId, linger: 1, batchBytes: 1_024 });
  step('publisher made');
  await Promise.all(plan.subjects.map((subject) => publishInto(client, publisher, subject)));
  const closing = publisher.close();
  await new Promise(setImmediate);
  step('closing');
  await closing;
}

/**
 * What an earlier life has sent and not heard of may be stored. The first message of this one insists on the last id that was found: with a
 * producer id that is used again, nothing of that earlier life can come behind it.
 */
async function publishInto(client: Client, publisher: Publisher, subject: string): Promise<void> {
  for (;;) {
    const head = await readBack(client, subject);
    step('read back');
    const draft = draftsOf(subject)[0] ?? newClientDraft(subject);
    try {
      const firstId = await publisher.publish(subject, draft.bodies[0] as string, { expectedLastId: head });
      step('first one stored');
      journal.append({ kind: 'stored', key: draft.key, firstId });
      break;
    } catch (error) {
      if ((error as ClientError).reason !== 'HEAD_MISMATCH') throw error;
    }
  }
  const working = new Set<Promise<void>>();
  const publish = (draft: Draft): void => {
    const work = publisher.publish(subject, draft.bodies[0] as string).then((firstId) => {
      say({ kind: 'saw', key: draft.key, firstId });
      step('id known');
      journal.append({ kind: 'stored', key: draft.key, firstId });
      step('result in the journal');
      working.delete(work);
    });
    working.add(work);
    step('publish called');
  };
  for (const draft of draftsOf(subject)) publish(draft);
  while (hasMore()) {
    publish(newClientDraft(subject));
    if (publisher.stats.batchesInFlight > 0) step('batches on their way');
    if (working.size >= CLIENT_IN_FLIGHT / plan.subjects.length) await Promise.race(working);
  }
  // One that is to die as it closes has batches on their way then.
  if (plan.dieAt !== 'closing') await Promise.all(working);
}

/** Finds out which of its messages are stored; the subject's last id. */
async function readBack(client: Client, subject: string): Promise<number> {
  const known = (await client.subject(subject).catch(noneYet))?.head ?? 0;
  for (let id = journal.lastId(subject) + 1; id <= known; id++) {
    const message = await client.fetch(subject, id).catch(voided);
    if (message === null) continue;
    const draft = draftsOf(subject).find(({ bodies }) => bodies[0] === message.text);
    if (draft === undefined) throw new Error(`${subject} ${id} is "${message.text}", which is known or was not made`);
    journal.append({ kind: 'stored', key: draft.key, firstId: id });
  }
  return known;
}

function noneYet(error: ClientError): null {
  if (error.reason === 'SUBJECT_NOT_FOUND') return null;
  throw error;
}

function voided(error: ClientError): null {
  if (error.reason === 'ID_VOID') return null;
  throw error;
}

function draftsOf(subject: string): Draft[] {
  return [...journal.pending.values()].filter((draft) => draft.subject === subject);
}

function newClientDraft(subject: string): Draft {
  const key = String(journal.drafts + 1);
  const draft = { key, subject, bodies: [`${plan.producerId} ${key}`] };
  journal.append({ kind: 'draft', ...draft });
  step('in the journal');
  return draft;
}

await (plan.kind === 'raw' ? runRaw() : runClient());
process.exitCode = plan.dieAt === '' ? 0 : NOT_REACHED;
