/**
 * Thread entry: one load on one server, in three phases (warm-up, measured, wind-down). Closed loop: each answer is followed at once by
 * the next call of its slot. Open loop: calls go out by the clock, and a call's latency counts from when it was due, so that a server that
 * stalls cannot hide it by slowing the generator down (coordinated omission).
 */
import { parentPort, workerData } from 'node:worker_threads';
import { type FrameWriter, frameWriter } from './frames.ts';
import { GrpcConnection } from './grpc-client.ts';
import { loadHistograms, newHistogram, packHistogram, record } from './histogram.ts';
import { Http2Connection } from './http2-client.ts';
import type { FromGenerator, GeneratorTask } from './load.ts';
import { Pacer } from './pacer.ts';
import { dueAt, dueBy, type Schedule } from './rates.ts';
import { TimelineRecorder } from './timeline.ts';
import type { CallListener, Transport } from './transport.ts';

/** A refused call of a fill is tried again after this. */
const RETRY_MS = 20;

type Phase = 'warm-up' | 'measured' | 'over';

class Generator implements CallListener {
  readonly #task: GeneratorTask;
  readonly #frames: FrameWriter;
  readonly #connections: Transport[] = [];
  readonly #histogram = newHistogram();
  readonly #raw = newHistogram();
  readonly #sendLag = newHistogram();
  readonly #timeline = new TimelineRecorder();
  /** By slot: when the call was due and when it was sent, in ms of performance.now, and its number. */
  readonly #dueAt: Float64Array;
  readonly #sentAt: Float64Array;
  readonly #numberOf: Float64Array;
  readonly #freeSlots: number[] = [];
  readonly #errors: Record<string, number> = {};
  #phase: Phase = 'warm-up';
  #next: number;
  #completed = 0;
  #measured = 0;
  #open = 0;
  #windowBegan = 0;
  #busyAtBegin = performance.eventLoopUtilization();
  #pacer: Pacer | null = null;

  constructor(task: GeneratorTask) {
    this.#task = task;
    this.#frames = frameWriter(task.frames);
    this.#next = task.firstCall;
    this.#dueAt = new Float64Array(task.inFlight);
    this.#sentAt = new Float64Array(task.inFlight);
    this.#numberOf = new Float64Array(task.inFlight);
  }

  async run(): Promise<void> {
    const { address, connections, client, mode, token } = this.#task;
    for (let i = 0; i < connections; i++) {
      const open = client === 'raw' ? Http2Connection : GrpcConnection;
      this.#connections.push(await open.connect(address, this, token));
    }
    if (mode.kind === 'open') this.#openLoop(mode.schedule);
    else this.#closedLoop();
    if (mode.kind === 'fill') {
      this.#begin();
      return;
    }
    setTimeout(() => this.#begin(), this.#task.warmupMs);
    setTimeout(() => this.#finish(), this.#task.warmupMs + this.#task.durationMs);
  }

  #closedLoop(): void {
    const now = performance.now();
    for (let slot = 0; slot < this.#task.inFlight; slot++) this.#issue(slot, now, now);
    for (const connection of this.#connections) connection.flush();
  }

  #openLoop(schedule: Schedule): void {
    for (let slot = this.#task.inFlight - 1; slot >= 0; slot--) this.#freeSlots.push(slot);
    const began = performance.now();
    let sent = 0;
    this.#pacer = new Pacer(() => {
      const now = performance.now();
      const due = dueBy(schedule, now - began);
      for (; sent < due; sent++) {
        const slot = this.#freeSlots.pop();
        if (slot === undefined) break;
        const dueTime = began + dueAt(schedule, sent + 1);
        if (this.#phase === 'measured') record(this.#sendLag, (now - dueTime) * 1_000);
        this.#issue(slot, dueTime, now);
      }
      for (const connection of this.#connections) connection.flush();
    });
  }

  #issue(slot: number, dueTime: number, now: number): void {
    const { mode, path } = this.#task;
    const number = this.#next;
    if (mode.kind === 'fill' && number >= this.#task.firstCall + mode.calls) return;
    this.#next = number + 1;
    this.#numberOf[slot] = number;
    this.#dueAt[slot] = dueTime;
    this.#sentAt[slot] = now;
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
      const latencyMs = now - (this.#dueAt[slot] as number);
      record(this.#histogram, latencyMs * 1_000);
      record(this.#raw, (now - (this.#sentAt[slot] as number)) * 1_000);
      this.#timeline.add(now, 1, latencyMs);
    }
    if (mode.kind === 'open') this.#freeSlots.push(slot);
    else if (this.#phase !== 'over') this.#issue(slot, now, now);
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
    this.#pacer?.stop();
    this.#tell({ kind: 'failed', why });
  }

  #begin(): void {
    if (this.#phase !== 'warm-up') return;
    this.#phase = 'measured';
    this.#windowBegan = performance.now();
    this.#busyAtBegin = performance.eventLoopUtilization();
    this.#timeline.begin(this.#windowBegan);
    // Errors of the warm-up would be counted against a window that they are not in.
    for (const code of Object.keys(this.#errors)) delete this.#errors[code];
    this.#tell({ kind: 'measuring' });
  }

  #finish(): void {
    if (this.#phase !== 'measured') return;
    const seconds = (performance.now() - this.#windowBegan) / 1_000;
    this.#phase = 'over';
    this.#pacer?.stop();
    this.#tell({
      kind: 'measured',
      result: {
        calls: this.#task.mode.kind === 'fill' ? this.#completed : this.#measured,
        seconds,
        errors: this.#errors,
        histogram: packHistogram(this.#histogram),
        rawHistogram: packHistogram(this.#raw),
        timeline: this.#timeline.result(),
        busy: performance.eventLoopUtilization(this.#busyAtBegin).utilization,
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
