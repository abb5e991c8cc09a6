/**
 * Thread entry: one load on one server, in three phases (warm-up, measured, wind-down). Closed loop: each answer is followed at once by
 * the next call of its slot. Open loop: calls go out by the clock, and a call's latency counts from when it was due, so that a server that
 * stalls cannot hide it by slowing the generator down (coordinated omission).
 */
import { parentPort, Worker, workerData } from 'node:worker_threads';
import { type FrameWriter, frameWriter } from './frames.ts';
import { GrpcConnection } from './grpc-client.ts';
import { loadHistograms, newHistogram, packHistogram, record } from './histogram.ts';
import { Http2Connection } from './http2-client.ts';
import type { FromGenerator, GeneratorTask } from './load.ts';
import type { CallListener, Transport } from './transport.ts';

/** A refused call of a fill is tried again after this. */
const RETRY_MS = 20;
/** Ticks of an open loop. */
const TICK_MS = 0.25;

type Phase = 'warm-up' | 'measured' | 'over';

class Generator implements CallListener {
  readonly #task: GeneratorTask;
  readonly #frames: FrameWriter;
  readonly #connections: Transport[] = [];
  readonly #histogram = newHistogram();
  readonly #sendLag = newHistogram();
  /** By slot: when the call was due, in ms of performance.now, and its number. */
  readonly #dueAt: Float64Array;
  readonly #numberOf: Float64Array;
  readonly #freeSlots: number[] = [];
  readonly #errors: Record<string, number> = {};
  #phase: Phase = 'warm-up';
  #next: number;
  #completed = 0;
  #measured = 0;
  #open = 0;
  #windowBegan = 0;

  constructor(task: GeneratorTask) {
    this.#task = task;
    this.#frames = frameWriter(task.frames);
    this.#next = task.firstCall;
    this.#dueAt = new Float64Array(task.inFlight);
    this.#numberOf = new Float64Array(task.inFlight);
  }

  async run(): Promise<void> {
    const { address, connections, client, mode } = this.#task;
    for (let i = 0; i < connections; i++) {
      const open = client === 'raw' ? Http2Connection : GrpcConnection;
      this.#connections.push(await open.connect(address, this));
    }
    if (mode.kind === 'open') this.#openLoop(mode.callsPerSecond);
    else this.#closedLoop();
    if (mode.kind === 'fill') {
      this.#begin();
      return;
    }
    setTimeout(() => this.#begin(), this.#task.warmupMs);
    setTimeout(() => this.#finish(), this.#task.warmupMs + this.#task.durationMs);
  }

  #closedLoop(): void {
    for (let slot = 0; slot < this.#task.inFlight; slot++) this.#issue(slot, performance.now());
    for (const connection of this.#connections) connection.flush();
  }

  #openLoop(callsPerSecond: number): void {
    const cells = new SharedArrayBuffer(8);
    const view = new Int32Array(cells);
    const ticker = new Worker(new URL('./ticker.ts', import.meta.url), { workerData: { cells, intervalMs: TICK_MS } });
    for (let slot = this.#task.inFlight - 1; slot >= 0; slot--) this.#freeSlots.push(slot);
    const began = performance.now();
    let sent = 0;
    const onTick = (): void => {
      if (this.#phase === 'over') {
        Atomics.store(view, 1, 1);
        Atomics.notify(view, 1);
        void ticker.terminate();
        return;
      }
      const now = performance.now();
      const due = Math.floor(((now - began) * callsPerSecond) / 1_000);
      for (; sent < due; sent++) {
        const slot = this.#freeSlots.pop();
        if (slot === undefined) break;
        const dueAt = began + ((sent + 1) * 1_000) / callsPerSecond;
        if (this.#phase === 'measured') record(this.#sendLag, (now - dueAt) * 1_000);
        this.#issue(slot, dueAt);
      }
      for (const connection of this.#connections) connection.flush();
      wait();
    };
    const wait = (): void => {
      const waiting = Atomics.waitAsync(view, 0, Atomics.load(view, 0));
      if (waiting.async) void waiting.value.then(onTick);
      else setImmediate(onTick);
    };
    wait();
  }

  #issue(slot: number, dueAt: number): void {
    const { mode, path } = this.#task;
    const number = this.#next;
    if (mode.kind === 'fill' && number >= this.#task.firstCall + mode.calls) return;
    this.#next = number + 1;
    this.#numberOf[slot] = number;
    this.#dueAt[slot] = dueAt;
    this.#open += 1;
    this.#send(slot, path);
  }

  #send(slot: number, path: string): void {
    const length = this.#frames.write(this.#numberOf[slot] as number);
    const connection = this.#connections[slot % this.#connections.length] as Transport;
    connection.call(slot, path, this.#frames.scratch, length);
  }

  onHeaders(): void {
    // Only streams care.
  }

  onMessage(): void {
    // The answer's content is the checker's business (test/faults), not a load's.
  }

  onEnd(slot: number, status: number): void {
    const { mode, path } = this.#task;
    if (status !== 0) {
      this.#errors[status] = (this.#errors[status] ?? 0) + 1;
      if (mode.kind === 'fill') {
        setTimeout(() => {
          this.#send(slot, path);
          this.#connections[slot % this.#connections.length]?.flush();
        }, RETRY_MS);
        return;
      }
    }
    const now = performance.now();
    this.#open -= 1;
    this.#completed += 1;
    if (this.#phase === 'measured' && status === 0) {
      this.#measured += 1;
      record(this.#histogram, (now - (this.#dueAt[slot] as number)) * 1_000);
    }
    if (mode.kind === 'open') this.#freeSlots.push(slot);
    else if (this.#phase !== 'over') this.#issue(slot, now);
    if (mode.kind === 'fill') {
      if (this.#completed % 10_000 === 0) this.#tell({ kind: 'progress', calls: this.#completed });
      if (this.#open === 0) this.#finish();
    } else if (this.#phase === 'over' && this.#open === 0) {
      this.#drained();
    }
  }

  onLost(why: string): void {
    if (this.#phase === 'over') return;
    this.#phase = 'over';
    this.#tell({ kind: 'failed', why });
  }

  #begin(): void {
    if (this.#phase !== 'warm-up') return;
    this.#phase = 'measured';
    this.#windowBegan = performance.now();
    // Errors of the warm-up would be counted against a window that they are not in.
    for (const code of Object.keys(this.#errors)) delete this.#errors[code];
    this.#tell({ kind: 'measuring' });
  }

  #finish(): void {
    if (this.#phase !== 'measured') return;
    const seconds = (performance.now() - this.#windowBegan) / 1_000;
    this.#phase = 'over';
    this.#tell({
      kind: 'measured',
      result: {
        calls: this.#task.mode.kind === 'fill' ? this.#completed : this.#measured,
        seconds,
        errors: this.#errors,
        histogram: packHistogram(this.#histogram),
        sendLag: packHistogram(this.#sendLag),
      },
    });
    if (this.#open === 0) this.#drained();
    // What is still open may be answered, so that the next round does not begin with this one's work.
    else setTimeout(() => this.#drained(), 5_000).unref();
  }

  #drained(): void {
    for (const connection of this.#connections) connection.close();
    this.#tell({ kind: 'drained' });
    parentPort?.close();
  }

  #tell(message: FromGenerator): void {
    parentPort?.postMessage(message);
  }
}

await loadHistograms();
await new Generator(workerData as GeneratorTask).run();
