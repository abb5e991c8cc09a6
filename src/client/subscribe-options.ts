/** What a subscription may be asked for, looked at before anything is opened: a request that cannot be written would break in the middle of it. */
import type { Start } from './codec.ts';
import { isPattern } from './positions.ts';

export interface SubscribeOptions {
  /** Default: new. */
  readonly start?: Start;
  /** Ends the subscription: the iteration stops at once, without an error; what was received and not handed out yet is left. */
  readonly signal?: AbortSignal;
  /** What may be on its way and waiting for the reader, each from 1; beyond it the broker waits. Default 4 MiB and 100,000 messages. */
  readonly credit?: { readonly bytes?: number; readonly messages?: number };
  /** How often the broker says where it stands, in ms, 100 to 600,000. Default 1,000. */
  readonly heartbeatMs?: number;
  /** Broadcasts too (their id is 0); only for a single subject without wildcards. */
  readonly broadcasts?: boolean;
}

/** Of proto/broker/v1/consumer.proto. */
const HEARTBEAT_MS_MIN = 100;
const HEARTBEAT_MS_MAX = 600_000;

/** Throws RangeError, or TypeError where a subject is no text. */
export function checkSubscription(subjects: readonly string[], options: SubscribeOptions): void {
  const { start = 'new', credit, heartbeatMs = HEARTBEAT_MS_MIN, broadcasts = false } = options;
  check(subjects.length > 0, 'subscribe takes at least one subject');
  if (subjects.some((subject) => typeof subject !== 'string')) throw new TypeError('a subject is text');
  const isSingle = subjects.length === 1 && !isPattern(subjects[0] as string);
  check(!broadcasts || isSingle, 'broadcasts come with a single subject only');
  check(isStart(start), "start: 'new', 'earliest', an id from 1 to 2^53-1, or a time in whole ms since 1970");
  check(isWhole(credit?.bytes ?? 1, 1) && isWhole(credit?.messages ?? 1, 1), 'credit: whole numbers from 1');
  check(
    isWhole(heartbeatMs, HEARTBEAT_MS_MIN) && heartbeatMs <= HEARTBEAT_MS_MAX,
    'heartbeatMs: whole ms, 100 to 600,000',
  );
}

function isStart(start: Start): boolean {
  if (start === 'new' || start === 'earliest') return true;
  if (typeof start !== 'object' || start === null) return false;
  return 'id' in start ? isWhole(start.id, 1) : isWhole(Number(start.time), 0);
}

function isWhole(value: number, min: number): boolean {
  return Number.isSafeInteger(value) && value >= min;
}

function check(holds: boolean, rule: string): void {
  if (!holds) throw new RangeError(rule);
}
