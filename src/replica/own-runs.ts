import { NODE_STARTED_AFTER_BYTES, originRunSize, writeNodeStartedAfter, writeOriginRun } from '../allot/commands.ts';
import { assert } from '../base/assert.ts';

/**
 * The runs of this process that are not applied, in order. Each goes to the leader once, and all of them again when there is reason to
 * think that some were lost; the state machine takes each once.
 */
export class OwnRuns {
  readonly #name: Uint8Array;
  readonly #low: number;
  readonly #high: number;
  readonly #runBytesMax: number;
  /** Runs #lastApplied + 1 and up. */
  #runs: Uint8Array[] = [];
  #bytes = 0;
  #lastApplied = 0;
  /** Runs up to this one are on their way. */
  #sentTo = 0;
  #sentBytes = 0;
  #isStarted = false;
  #keepOpen = false;

  constructor(name: Uint8Array, incarnationLow: number, incarnationHigh: number, runBytesMax: number) {
    this.#name = name;
    this.#low = incarnationLow;
    this.#high = incarnationHigh;
    this.#runBytesMax = runBytesMax;
  }

  get bytes(): number {
    return this.#bytes;
  }
  get isStarted(): boolean {
    return this.#isStarted;
  }
  get lastApplied(): number {
    return this.#lastApplied;
  }
  /** Number of the last run that was made. */
  get last(): number {
    return this.#lastApplied + this.#runs.length;
  }
  /** Runs that are on their way. */
  get underWay(): number {
    return this.#sentTo - this.#lastApplied;
  }

  /** Makes run 1. `after`: the node's last node-started, as this node knows it. */
  start(keepOpen: boolean, after: number): void {
    assert(!this.#isStarted, 'a process starts once');
    this.#isStarted = true;
    this.#keepOpen = keepOpen;
    this.#push(this.#firstRun(after));
  }

  add(commands: readonly Uint8Array[]): void {
    assert(this.#isStarted, 'the first run says that the process has started');
    let from = 0;
    let bytes = 0;
    for (let i = 0; i < commands.length; i++) {
      const length = (commands[i] as Uint8Array).length;
      if (bytes > 0 && bytes + length > this.#runBytesMax) {
        this.#push(this.#encode(this.last + 1, commands, from, i, bytes));
        from = i;
        bytes = 0;
      }
      bytes += length;
    }
    if (bytes > 0) this.#push(this.#encode(this.last + 1, commands, from, commands.length, bytes));
  }

  hasToSend(windowBytes: number): boolean {
    const next = this.#runs[this.#sentTo - this.#lastApplied];
    if (next === undefined) return false;
    // Nothing is sent behind run 1 until it is applied: it may have to be written anew.
    if (this.#sentTo > 0 && this.#lastApplied === 0) return false;
    return this.#sentBytes === 0 || this.#sentBytes + next.length <= windowBytes;
  }

  /** The next runs that fit into the window, at least one if nothing is under way. They count as sent. */
  takeToSend(windowBytes: number): Uint8Array[] {
    const taken: Uint8Array[] = [];
    while (this.hasToSend(windowBytes)) {
      const run = this.#runs[this.#sentTo - this.#lastApplied] as Uint8Array;
      taken.push(run);
      this.#sentTo += 1;
      this.#sentBytes += run.length;
    }
    return taken;
  }

  /** What was sent may be lost. */
  sendAgain(): void {
    this.#sentTo = this.#lastApplied;
    this.#sentBytes = 0;
  }

  /** The log has it, and all before it. Returns the runs that were not known to be. */
  appliedTo(run: number): Uint8Array[] {
    const count = Math.min(run - this.#lastApplied, this.#runs.length);
    if (count <= 0) return [];
    const gone = this.#runs.splice(0, count);
    for (const each of gone) this.#bytes -= each.length;
    const wasSent = Math.min(Math.max(this.#sentTo - this.#lastApplied, 0), count);
    for (let i = 0; i < wasSent; i++) this.#sentBytes -= (gone[i] as Uint8Array).length;
    this.#lastApplied += count;
    this.#sentTo = Math.max(this.#sentTo, this.#lastApplied);
    return gone;
  }

  /** The log has skipped it. One that was applied before was a repeat. `after`: the node's last node-started at this place of the log. */
  skipped(run: number, after: number): void {
    if (run <= this.#lastApplied) return;
    if (this.#lastApplied === 0 && this.#runs.length > 0) {
      this.#bytes -= (this.#runs[0] as Uint8Array).length;
      this.#runs[0] = this.#firstRun(after);
      this.#bytes += (this.#runs[0] as Uint8Array).length;
    }
    this.sendAgain();
  }

  #push(run: Uint8Array): void {
    this.#runs.push(run);
    this.#bytes += run.length;
  }

  #firstRun(after: number): Uint8Array {
    const started = new Uint8Array(NODE_STARTED_AFTER_BYTES);
    writeNodeStartedAfter(new DataView(started.buffer), 0, this.#keepOpen, after);
    return this.#encode(1, [started], 0, 1, started.length);
  }

  #encode(run: number, commands: readonly Uint8Array[], from: number, to: number, byteCount: number): Uint8Array {
    const bytes = new Uint8Array(originRunSize(this.#name.length) + byteCount);
    const view = new DataView(bytes.buffer);
    let at = writeOriginRun(view, bytes, 0, this.#name, this.#low, this.#high, run, byteCount);
    for (let i = from; i < to; i++) {
      bytes.set(commands[i] as Uint8Array, at);
      at += (commands[i] as Uint8Array).length;
    }
    return bytes;
  }
}
