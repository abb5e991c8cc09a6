/** What the tests of flow control share: figures of a broker process, and publishers that keep count. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import type { BrokerProcess } from '../support/broker.ts';
import { type BrokerClient, CallError } from '../support/client.ts';
import { pause, until } from '../support/until.ts';

export const MIB = 1 << 20;

export { pause, until };

/** A scrape of /metrics: the samples of one name summed up, over those whose labels include `labels`. */
export class Metrics {
  readonly #text: string;

  private constructor(text: string) {
    this.#text = text;
  }

  static async of(broker: Pick<BrokerProcess, 'adminAddress'>): Promise<Metrics> {
    const response = await fetch(`http://${broker.adminAddress}/metrics`);
    return new Metrics(await response.text());
  }

  sum(name: string, ...labels: readonly string[]): number {
    let total = 0;
    let found = false;
    for (const line of this.#text.split('\n')) {
      if (!line.startsWith(`${name} `) && !line.startsWith(`${name}{`)) continue;
      found = true;
      if (labels.every((label) => line.includes(label))) total += Number(line.slice(line.lastIndexOf(' ') + 1));
    }
    assert(found, `no metric ${name}`);
    return total;
  }
}

/** Resident memory of the process, in bytes. */
export function rssOf(broker: BrokerProcess): number {
  const kib = /VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${broker.pid}/status`, 'utf8'))?.[1];
  return Number(kib) * 1024;
}

/** The highest resident memory while `work` runs. */
export async function peakRss(broker: BrokerProcess, work: Promise<unknown>): Promise<number> {
  let peak = rssOf(broker);
  const timer = setInterval(() => {
    peak = Math.max(peak, rssOf(broker));
  }, 20);
  await work.finally(() => clearInterval(timer));
  return Math.max(peak, rssOf(broker));
}

/** CPU time that the process has used, in clock ticks of 10 ms. */
function cpuTicks(broker: BrokerProcess): number {
  const stat = readFileSync(`/proc/${broker.pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return Number(fields[11]) + Number(fields[12]);
}

/** Share of one core that the process uses during the next `ms`. */
export async function cpuShare(broker: BrokerProcess, ms: number): Promise<number> {
  const before = cpuTicks(broker);
  const begun = performance.now();
  await pause(ms);
  return ((cpuTicks(broker) - before) * 10) / (performance.now() - begun);
}

/** `count` publishes, at most `width` at a time; rejects with the first failure. */
export async function publishAll(
  count: number,
  width: number,
  publish: (number: number) => Promise<unknown>,
): Promise<void> {
  let next = 0;
  const worker = async (): Promise<void> => {
    while (next < count) await publish(next++);
  };
  await Promise.all(Array.from({ length: width }, worker));
}

/** A body of `size` bytes that begins with its number. */
export function numbered(number: number, size: number): Buffer {
  const body = Buffer.alloc(size, number % 251);
  body.writeUInt32LE(number, 0);
  return body;
}

/** A subscription that remembers what it was given. */
export function follow(client: BrokerClient, subject: string, start: Parameters<BrokerClient['subscribe']>[1]) {
  const live = Promise.withResolvers<void>();
  const ended = Promise.withResolvers<CallError | null>();
  const numbers: number[] = [];
  const ids: number[] = [];
  const hooks = { onMessage: (): void => undefined };
  const subscription = client.subscribe(subject, start, {
    onLive: () => live.resolve(),
    onEnd: (error) => {
      live.resolve();
      ended.resolve(error);
    },
    onMessage(message) {
      ids.push(message.id);
      numbers.push(message.body.length < 4 ? -1 : message.body.readUInt32LE(0));
      hooks.onMessage();
    },
  });
  return { subscription, ids, numbers, hooks, live: live.promise, ended: ended.promise };
}

/** The refusal of a call; fails if it was not refused. */
export async function refusal(call: Promise<unknown>): Promise<CallError> {
  try {
    await call;
  } catch (error) {
    assert(error instanceof CallError, String(error));
    return error;
  }
  assert.fail('the call was not refused');
}

export function range(from: number, to: number): number[] {
  return Array.from({ length: to - from + 1 }, (_, i) => from + i);
}
