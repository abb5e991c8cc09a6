/** What the parts of the load of a cluster share: the checker, the file of operations, the addresses, and what they count. */
import type { Prng } from '../../src/base/prng.ts';
import type { History, ReadResult } from '../support/checker.ts';
import { type BrokerClient, CallError } from '../support/client.ts';
import { FOREIGN_KEY, Operations, VOID_KEY } from '../support/operations.ts';
import { delivered } from './kill-load.ts';

export const HOT_SUBJECT = 'cluster.hot';
export const PROBE_SUBJECT = 'cluster.probe';
const SUBJECTS = [HOT_SUBJECT, 'cluster.a', 'cluster.b', 'cluster.c', 'cluster.größe'];
const PAYLOAD_BYTES_MIN = 48;
const PAYLOAD_BYTES_SPAN = 120;
const ACKED_KEPT = 2_000;

/** A message of the load. */
export interface Draft {
  readonly subject: string;
  readonly body: Buffer;
  /** Number in the History, and its key in the file of operations. */
  readonly submission: number;
}

/** What the parts of the load share. */
export class LoadContext {
  readonly history: History;
  readonly operations: Operations;
  readonly prng: Prng;
  readonly addresses: readonly string[];
  readonly label: string;
  /** A part of what was acknowledged, for the fetchers. */
  readonly acked: { readonly subject: string; readonly id: number }[] = [];
  latestAcked: { readonly subject: string; readonly id: number } | null = null;
  /** Messages that were acknowledged, over all starts of the load. */
  ackedCount = 0;
  isOver = true;
  /**
   * Acknowledgements that come now count as unknown: a disk is being cut, and may have said that a sync is done of what is gone
   * (PowerCutDisk.cut).
   */
  isDoubtful = false;
  /** Answers that say "no effect": how often each. */
  readonly refusals = new Map<string, number>();
  /** Refusals that do not say when to try again. */
  readonly finalRefusals = new Set<string>();

  constructor(fields: Pick<LoadContext, 'history' | 'operations' | 'prng' | 'addresses' | 'label'>) {
    this.history = fields.history;
    this.operations = fields.operations;
    this.prng = fields.prng;
    this.addresses = fields.addresses;
    this.label = fields.label;
  }

  chooseSubject(): string {
    return SUBJECTS[this.prng.nextBelow(SUBJECTS.length)] as string;
  }

  draft(subject: string, lane: string, producer?: { readonly producer: string; readonly sequence: number }): Draft {
    const number = this.history.submissions;
    const body = Buffer.alloc(PAYLOAD_BYTES_MIN + this.prng.nextBelow(PAYLOAD_BYTES_SPAN));
    for (let at = 0; at + 4 <= body.length; at += 4) body.writeUInt32LE(this.prng.nextUint32(), at);
    body.write(`${number} ${lane} `);
    const submission = this.history.submit({ subject, payload: body, lane, ...producer });
    return { subject, body, submission };
  }

  onAcked(subject: string, id: number, count: number): void {
    this.ackedCount += count;
    this.latestAcked = { subject, id };
    if (this.acked.length < ACKED_KEPT) this.acked.push({ subject, id });
    else this.acked[this.prng.nextBelow(ACKED_KEPT)] = { subject, id };
  }

  onRefused(reason: string, isRetryable: boolean): void {
    this.refusals.set(reason, (this.refusals.get(reason) ?? 0) + 1);
    if (!isRetryable) this.finalRefusals.add(reason);
  }
}

/** Key of a message that was read. */
export function keyOf(body: Buffer): number {
  const text = body.subarray(0, 16).toString('latin1');
  const end = text.indexOf(' ');
  const key = Number(text.slice(0, end));
  return end > 0 && Number.isSafeInteger(key) ? key : FOREIGN_KEY;
}

/** A message without a producer id, once. True if it was acknowledged. */
export async function publishOnce(
  context: LoadContext,
  client: BrokerClient,
  lane: string,
  subject: string,
): Promise<boolean> {
  const { history, operations } = context;
  const { body, submission } = context.draft(subject, lane);
  const attempt = history.beginAttempt(submission);
  const start = Operations.now();
  const record = (outcome: 'ok' | 'none' | 'unknown', id: number): void =>
    operations.publish({ client: lane, subject, start, end: Operations.now(), key: submission, count: 1, outcome, id });
  try {
    const id = await client.publish({ subject, body });
    if (context.isDoubtful) {
      history.endAttempt(attempt, { outcome: 'unknown' });
      record('unknown', 0);
      return false;
    }
    history.endAttempt(attempt, { outcome: 'ok', id });
    record('ok', id);
    context.onAcked(subject, id, 1);
    return true;
  } catch (error) {
    const outcome = outcomeOf(context, error);
    history.endAttempt(attempt, { outcome });
    record(outcome, 0);
    return false;
  }
}

/** What may be assumed of a call that failed; anything but a failed call is thrown again. */
export function outcomeOf(context: LoadContext, error: unknown): 'none' | 'unknown' {
  if (!(error instanceof CallError)) throw error;
  if (error.outcome === 'none') context.onRefused(`${error.statusName} ${error.reason}`, error.retryAfterMs !== null);
  return error.outcome;
}

const READ_AS: Readonly<Record<string, 'void' | 'absent'>> = {
  ID_VOID: 'void',
  ID_NOT_FOUND: 'absent',
  SUBJECT_NOT_FOUND: 'absent',
};

/** A fetch, for the file of operations; one without an answer says nothing. */
export function recordFetch(
  operations: Operations,
  { key }: Found,
  fields: { readonly client: string; readonly subject: string; readonly id: number; readonly start: number },
): void {
  if (key === null) return;
  const [outcome, found] = key === 'absent' ? (['absent', 0] as const) : (['ok', key] as const);
  operations.fetch({ ...fields, end: Operations.now(), outcome, key: found });
}

export interface Found {
  readonly result: ReadResult;
  /** Of what was found, null if there was no answer. */
  readonly key: number | 'absent' | null;
}

export async function fetchOnce(client: BrokerClient, subject: string, id: number): Promise<Found> {
  try {
    const message = await client.fetch(subject, id);
    return { result: { kind: 'message', ...delivered(message) }, key: keyOf(message.body) };
  } catch (error) {
    if (!(error instanceof CallError)) throw error;
    const kind = error.reason === null ? undefined : READ_AS[error.reason];
    if (kind !== undefined) return { result: { kind }, key: kind === 'void' ? VOID_KEY : 'absent' };
    // A message that is known to be missing is an answer too.
    return { result: { kind: 'failed', detail: error.message }, key: error.reason === 'DATA_LOSS' ? 'absent' : null };
  }
}
