/** Messages that are published while the pods come and go, and whether each that was acknowledged is there. */
import assert from 'node:assert/strict';
import { type Client, connect } from '../../src/client/index.ts';
import { pause } from '../support/until.ts';

const SUBJECT = 'kubernetes.check';
const EVERY_MS = 10;
/** Ids that a recovery leaves out. */
const GAP = 2 ** 20;

export class CheckLoad {
  readonly #client: Client;
  readonly #bodies = new Map<number, string>();
  readonly #publishing: Promise<void>;
  #isRunning = true;
  #refused = 0;
  #last = performance.now();
  #gapMs = 0;

  constructor(addresses: readonly string[]) {
    this.#client = connect(addresses);
    this.#publishing = this.#publish();
  }

  get acked(): number {
    return this.#bodies.size;
  }

  /** The longest time without an acknowledgement since this was asked last, in ms. */
  gapMs(): number {
    const gap = Math.max(this.#gapMs, performance.now() - this.#last);
    this.#gapMs = 0;
    return gap;
  }

  async #publish(): Promise<void> {
    for (let count = 0; this.#isRunning; count += 1) {
      const body = `message ${count}`;
      try {
        const id = await this.#client.publish(SUBJECT, body);
        assert.ok(!this.#bodies.has(id), `id ${id} was given twice`);
        this.#bodies.set(id, body);
        const now = performance.now();
        this.#gapMs = Math.max(this.#gapMs, now - this.#last);
        this.#last = now;
      } catch (error) {
        if (error instanceof assert.AssertionError) throw error;
        this.#refused += 1;
      }
      await pause(EVERY_MS);
    }
  }

  /** Stops, and reads everything back. */
  async judge(): Promise<string> {
    this.#isRunning = false;
    await this.#publishing;
    for (const [id, body] of this.#bodies) {
      const { text } = await this.#client.fetch(SUBJECT, id);
      assert.equal(text, body, `message ${id}`);
    }
    return `${this.#bodies.size} acknowledged, all there; ${this.#refused} refused or unknown`;
  }

  /** After a recovery: what was acknowledged is there, and the next id is far behind. */
  async judgeGap(): Promise<string> {
    const last = Math.max(...this.#bodies.keys());
    const { text } = await this.#client.fetch(SUBJECT, last);
    assert.equal(text, this.#bodies.get(last));
    const id = await this.#client.publish(SUBJECT, 'after the recovery');
    assert.ok(id > last + GAP, `after ${last} came ${id}`);
    return `after id ${last} comes ${id}`;
  }

  async close(): Promise<void> {
    this.#isRunning = false;
    await this.#publishing;
    await this.#client.close();
  }
}
