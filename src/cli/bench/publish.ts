/** Publishing as fast as the broker takes it, or at a rate. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Client } from '../../client/index.ts';
import type { Figures } from './figures.ts';

export interface PublishLoad {
  readonly subject: string;
  /** Over all clients. */
  readonly messages: number;
  /** Of a body, in bytes. */
  readonly size: number;
  readonly clients: number;
  /** Messages that are handed over together; latency is that of the whole. */
  readonly batch: number;
  /** Batches of one client that may be without an answer. */
  readonly inFlight: number;
  /** Messages a second over all clients; 0: as many as go. */
  readonly throughput: number;
  /** Each client has a subject of its own. */
  readonly isMultiSubject: boolean;
}

/** One connection and one producer a client. At a rate, latency counts from when a batch was due, so that a broker that stalls is seen to. */
export async function benchPublish(
  client: Client,
  load: PublishLoad,
  figures: Figures,
  signal: AbortSignal,
): Promise<void> {
  const share = Math.ceil(load.messages / load.clients);
  const bodies = Array.from({ length: load.batch }, () => Buffer.alloc(load.size, 'x'));
  const work = Array.from({ length: load.clients }, async (_, index) => {
    const count = Math.max(0, Math.min(share, load.messages - index * share));
    await using publisher = client.publisher({
      batchBytes: batchBytesOf(load),
      batchMessages: Math.max(load.batch, 1),
    });
    // What is left of the load is then waited for no longer: a quota, or a broker that is away, may keep it for ever.
    const cut = (): void => void publisher.close({ signal }).catch(() => undefined);
    signal.addEventListener('abort', cut, { once: true });
    const subject = load.isMultiSubject ? `${load.subject}.${index}` : load.subject;
    const waiting = new Set<Promise<void>>();
    const intervalMs = load.throughput === 0 ? 0 : (1_000 * load.batch * load.clients) / load.throughput;
    const beganAt = performance.now();
    let failure: unknown = null;
    for (let sent = 0, number = 0; sent < count && failure === null; number += 1) {
      const size = Math.min(load.batch, count - sent);
      let dueAt = performance.now();
      if (intervalMs > 0) {
        dueAt = beganAt + number * intervalMs;
        const early = dueAt - performance.now();
        if (early > 1) await sleep(early, undefined, { signal });
      } else if (waiting.size >= load.inFlight) {
        await Promise.race(waiting);
      }
      signal.throwIfAborted();
      const published = publisher
        .publishMany(subject, size === bodies.length ? bodies : bodies.slice(0, size), { signal })
        .then(
          () => figures.count(size, size * load.size, performance.now() - dueAt),
          (error: unknown) => {
            failure ??= error;
          },
        )
        .finally(() => waiting.delete(published));
      waiting.add(published);
      sent += size;
    }
    await Promise.all(waiting);
    if (failure !== null) throw failure;
  });
  await Promise.all(work);
}

/** A batch holds what is handed over together, within what the publisher takes. */
function batchBytesOf({ batch, size }: PublishLoad): number {
  return Math.min(1024 * 1024, Math.max(1024, batch * (size + 16)));
}
