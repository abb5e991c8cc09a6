/** A client of one node that publishes one message after the other, and knows when it was not answered for how long. */
import { setTimeout as sleep } from 'node:timers/promises';
import { BrokerClient } from '../support/client.ts';
import { type LoadContext, PROBE_SUBJECT, publishOnce } from './cluster-context.ts';

const EVERY_MS = 5;
const TIMEOUT_MS = 30_000;

export class Probe {
  readonly #context: LoadContext;
  readonly #address: string;
  readonly #node: number;
  /** performance.now() of each acknowledgement. */
  readonly #ackedAt: number[] = [];
  /** performance.now() at which the call of the last acknowledgement was sent. */
  lastAckedSentAt = 0;

  constructor(context: LoadContext, address: string, node: number) {
    this.#context = context;
    this.#address = address;
    this.#node = node;
  }

  async run(): Promise<void> {
    const client = new BrokerClient(this.#address, { timeoutMs: TIMEOUT_MS });
    const lane = `${this.#context.label}-probe-${this.#node}`;
    while (!this.#context.isOver) {
      const sentAt = performance.now();
      if (await publishOnce(this.#context, client, lane, PROBE_SUBJECT)) {
        this.#ackedAt.push(performance.now());
        this.lastAckedSentAt = sentAt;
      }
      await sleep(EVERY_MS);
    }
    client.close();
  }

  /** Longest time between two acknowledgements of which the second came after `since` and the first before `until` (performance.now()), in ms. */
  gapMs(since: number, until: number): number {
    let gap = 0;
    for (let index = this.#ackedAt.length - 1; index > 0; index--) {
      const [before, after] = [this.#ackedAt[index - 1] as number, this.#ackedAt[index] as number];
      if (after <= since) break;
      if (before < until) gap = Math.max(gap, after - before);
    }
    return gap;
  }
}
