/** The main thread's side of one shard. */
import type { DispatcherLimits } from '../../src/workers/front/dispatcher-limits.ts';

/** Of a front whose limits are not what is tested. */
export const FRONT_LIMITS: DispatcherLimits = {
  shardsMax: 1,
  ringBytes: 1 << 16,
  callsMax: 10,
  bytesMax: 1 << 30,
  receiveTimeoutMs: 30_000,
  requestTimeoutMs: 300_000,
  consumerSubjectsMax: 100,
  subscriptionsMax: 10,
  bufferBytes: 1 << 20,
  unsentBytesMax: 1 << 30,
  stallTimeoutMs: 60_000,
  producerStreamsMax: 0,
  sectionBytesMax: 1 << 10,
  window: { bytesMin: 1, bytesStart: 1, bytesMax: 1, targetMs: 1 },
  scan: { bodyBytes: 1 << 10, headersBytes: 0, headersCount: 0 },
};
