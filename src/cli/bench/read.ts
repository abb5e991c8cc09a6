/** Reading: streams of everything, and single messages at random. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Client, Start } from '../../client/index.ts';
import type { Figures } from './figures.ts';

export interface SubscribeLoad {
  readonly subject: string;
  /** To each client. */
  readonly messages: number;
  readonly clients: number;
  readonly start: Start;
}

/** Every client gets every message. Latency is from publishing to here, by both clocks, and only of messages that were not there before. */
export async function benchSubscribe(
  client: Client,
  load: SubscribeLoad,
  figures: Figures,
  signal: AbortSignal,
): Promise<void> {
  const isLive = load.start === 'new';
  const work = Array.from({ length: load.clients }, async () => {
    let left = load.messages;
    for await (const batch of client.subscribe(load.subject, { start: load.start, signal }).batches()) {
      const count = Math.min(left, batch.count);
      // Counting begins with the first message: a subscriber that waits for its publisher is not slow.
      if (figures.messages === 0) figures.begin(performance.now());
      figures.count(count, batch.bytes, isLive ? Math.max(0, Date.now() - batch.publishedAt) : null);
      left -= count;
      if (left === 0) return;
    }
    signal.throwIfAborted();
  });
  await Promise.all(work);
}

export interface FetchLoad {
  readonly subject: string;
  /** Over all clients. */
  readonly messages: number;
  /** Calls at a time. */
  readonly clients: number;
  /** Calls a second over all clients; 0: as many as go. */
  readonly throughput: number;
}

/**
 * Messages at random ids from the first to the last that there are. At a rate, latency counts from when a call was due, so that a broker
 * that stalls is seen to.
 */
export async function benchFetch(
  client: Client,
  load: FetchLoad,
  figures: Figures,
  signal: AbortSignal,
): Promise<void> {
  const { first, settled } = await client.subject(load.subject, { signal });
  const intervalMs = load.throughput === 0 ? 0 : 1_000 / load.throughput;
  const beganAt = performance.now();
  let begun = 0;
  const work = Array.from({ length: load.clients }, async () => {
    while (begun < load.messages) {
      const dueAt = intervalMs === 0 ? performance.now() : beganAt + begun * intervalMs;
      begun += 1;
      const earlyMs = dueAt - performance.now();
      if (earlyMs > 1) await sleep(earlyMs, undefined, { signal });
      const id = first + Math.floor(Math.random() * (settled - first + 1));
      const message = await client.fetch(load.subject, id, { signal });
      figures.count(1, message.body.length, performance.now() - dueAt);
    }
  });
  await Promise.all(work);
}
