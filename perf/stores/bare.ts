/** The bare way to a store: its driver, or the disk, and nothing else. It writes groups of the shape that the broker was seen to write. */
import { Worker } from 'node:worker_threads';
import type { ConnectOptions } from '../../src/storage/cassandra/connect.ts';

/** What the broker writes at a time, on average. */
export interface GroupShape {
  /** Batches of a group. */
  readonly batches: number;
  /** Encoded bytes of a batch. */
  readonly batchBytes: number;
  readonly messagesPerBatch: number;
}

export type BareTarget =
  | { readonly kind: 'postgres'; readonly url: string; readonly schema: string }
  | {
      readonly kind: 'cassandra';
      readonly contactPoint: string;
      readonly datacenter: string;
      readonly credentials: ConnectOptions['credentials'];
      readonly keyspace: string;
    }
  | { readonly kind: 'embedded'; readonly folder: string };

export interface BareTask {
  readonly target: BareTarget;
  readonly shape: GroupShape;
  readonly subjects: number;
  /** Groups on their way at a time: as many connections of PostgreSQL. */
  readonly inFlight: number;
  /** Nothing is written twice: ids of this run begin here. */
  readonly firstBase: number;
  readonly warmupMs: number;
  readonly durationMs: number;
}

export interface BareResult {
  readonly groupsPerSecond: number;
  readonly messagesPerSecond: number;
  /** Ids below are taken now. */
  readonly nextBase: number;
}

export type FromBare =
  | { readonly kind: 'measured'; readonly result: BareResult }
  | { readonly kind: 'failed'; readonly why: string };

/** In a thread of its own, as the generators are. */
export function runBare(task: BareTask): Promise<BareResult> {
  return new Promise((resolve, reject) => {
    const worker = new Worker(new URL('./bare-writer.ts', import.meta.url), { workerData: task });
    worker.on('error', reject);
    worker.on('message', (message: FromBare) => {
      if (message.kind === 'measured') resolve(message.result);
      else reject(new Error(`the bare writer failed: ${message.why}`));
    });
    worker.on('exit', () => reject(new Error('the bare writer ended without a result')));
  });
}
