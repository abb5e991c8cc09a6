/**
 * Thread entry: publish streams on one server, in three phases as generator.ts has them. A frame is answered when all its batches are (the
 * broker's cumulative acknowledgement), or by the yardstick's 16 bytes.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { AnswersRecorder } from './answers.ts';
import { GrpcConnection } from './grpc-client.ts';
import { loadHistograms, newHistogram, packHistogram, record } from './histogram.ts';
import { Http2Connection } from './http2-client.ts';
import { Pacer } from './pacer.ts';
import { dueAt, dueBy } from './rates.ts';
import { BatchFrameWriter, openFrame, PublishResponseScan } from './stream-frames.ts';
import type { FromStream, StreamTask } from './stream-load.ts';
import { TimelineRecorder } from './timeline.ts';
import type { CallListener, Transport } from './transport.ts';

/** Frames whose times are remembered; above what the broker ever lets be in flight (1,024 batches). */
const TIMES = 4_096;
/** Batches without a result that the broker allows on a stream. */
const BATCHES_MAX = 1_024;

interface Lane {
  readonly slot: number;
  readonly connection: Transport;
  readonly scan: PublishResponseScan;
  /** When frame n was due and sent, at n mod TIMES. */
  readonly dueAt: Float64Array;
  readonly sentAt: Float64Array;
  sent: number;
  answered: number;
  isReady: boolean;
  hasEnded: boolean;
}

class StreamGenerator implements CallListener {
  readonly #task: StreamTask;
  readonly #frames: BatchFrameWriter;
  readonly #lanes: Lane[] = [];
  readonly #connections: Transport[] = [];
  readonly #histogram = newHistogram();
  readonly #raw = newHistogram();
  readonly #sendLag = newHistogram();
  readonly #timeline = new TimelineRecorder();
  readonly #answers: AnswersRecorder | null;
  readonly #errors: Record<string, number> = {};
  readonly #gateCell: Int32Array | null;
  #pacer: Pacer | null = null;
  #phase: 'opening' | 'warm-up' | 'measured' | 'over' = 'opening';
  #began = 0;
  #windowBegan = 0;
  #busyAtBegin = performance.eventLoopUtilization();
  /** Of the open loop: frames sent so far, and the lane whose turn it is. */
  #issued = 0;
  #turn = 0;
  #measuredFrames = 0;
  #measuredBytes = 0;
  #failedBatches = 0;
  #frameBytes = 0;

  constructor(task: StreamTask) {
    this.#task = task;
    this.#frames = new BatchFrameWriter(task.frames);
    this.#answers = task.keepsAnswers === true ? new AnswersRecorder() : null;
    this.#gateCell = task.gate === undefined ? null : new Int32Array(task.gate.cell);
  }

  async run(): Promise<void> {
    const { address, connections, streams, client, path, protocol, name } = this.#task;
    const open = client === 'raw' ? Http2Connection : GrpcConnection;
    for (let i = 0; i < connections; i++) this.#connections.push(await open.connect(address, this));
    for (let slot = 0; slot < streams; slot++) {
      const connection = this.#connections[slot % connections] as Transport;
      const scan = new PublishResponseScan();
      const isReady = protocol === 'bare';
      const times = { dueAt: new Float64Array(TIMES), sentAt: new Float64Array(TIMES) };
      this.#lanes.push({ slot, connection, scan, ...times, sent: 0, answered: 0, isReady, hasEnded: false });
      connection.open(slot, path);
      if (protocol === 'bare') continue;
      const frame = openFrame(`${name}-${slot}`);
      connection.send(slot, frame, frame.length);
    }
    for (const connection of this.#connections) connection.flush();
    if (protocol === 'bare') this.#start();
  }

  #start(): void {
    const { schedule, warmupMs, durationMs } = this.#task;
    this.#phase = 'warm-up';
    this.#began = performance.now();
    // A closed loop is driven by answers; its ticks only look at the gate.
    if (schedule !== null || this.#gateCell !== null) this.#pacer = new Pacer(() => this.#pump());
    if (this.#task.framesTotal !== undefined) {
      this.#begin();
      this.#pump();
      return;
    }
    this.#pump();
    setTimeout(() => this.#begin(), warmupMs);
    setTimeout(() => this.#finish(), warmupMs + durationMs);
  }

  /** Sends what is due, or, in a closed loop, what fits. */
  #pump(): void {
    if (this.#phase === 'over' || this.#phase === 'opening') return;
    const { schedule } = this.#task;
    const now = performance.now();
    if (schedule === null) {
      for (const lane of this.#lanes) while (this.#maySend(lane)) this.#send(lane, now, now);
    } else {
      const due = dueBy(schedule, now - this.#began);
      while (this.#issued < due) {
        const lane = this.#nextLane();
        if (lane === null) break;
        this.#issued += 1;
        const dueTime = this.#began + dueAt(schedule, this.#issued);
        if (this.#phase === 'measured') record(this.#sendLag, (now - dueTime) * 1_000);
        this.#send(lane, dueTime, now);
      }
    }
    for (const connection of this.#connections) connection.flush();
  }

  #nextLane(): Lane | null {
    for (let tried = 0; tried < this.#lanes.length; tried++) {
      const lane = this.#lanes[this.#turn++ % this.#lanes.length] as Lane;
      if (this.#maySend(lane)) return lane;
    }
    return null;
  }

  #maySend(lane: Lane): boolean {
    const { framesInFlight, protocol, gate, ignoresWindow } = this.#task;
    const inFlight = lane.sent - lane.answered;
    if (lane.sent === this.#task.framesTotal) return false;
    if (!lane.isReady || lane.hasEnded || inFlight >= framesInFlight || lane.connection.backlog(lane.slot) > 0)
      return false;
    if (gate !== undefined && this.#gateCell !== null) {
      const total = this.#lanes.reduce((sum, one) => sum + one.sent, 0) * this.#frames.messagesPerFrame;
      if (total - Atomics.load(this.#gateCell, 0) >= gate.window) return false;
    }
    if (protocol === 'bare' || ignoresWindow === true) return true;
    const { batches, sectionBytes, messagesPerFrame } = this.#frames;
    if ((inFlight + 1) * batches > BATCHES_MAX) return false;
    const bytes = (lane.sent + 1) * batches * sectionBytes;
    return bytes <= lane.scan.bytesLimit && (lane.sent + 1) * messagesPerFrame <= lane.scan.messagesLimit;
  }

  #send(lane: Lane, dueTime: number, now: number): void {
    const length = this.#frames.write(lane.sent * this.#frames.batches + 1);
    lane.dueAt[lane.sent % TIMES] = dueTime;
    lane.sentAt[lane.sent % TIMES] = now;
    lane.sent += 1;
    this.#frameBytes = length;
    lane.connection.send(lane.slot, this.#frames.scratch, length);
  }

  onHeaders(): void {
    // The first answer says more.
  }

  onMessage(slot: number, bytes: Buffer, start: number, end: number): void {
    const lane = this.#lanes[slot] as Lane;
    if (this.#task.protocol === 'bare') {
      this.#answered(lane, lane.answered + 1);
    } else {
      const { scan } = lane;
      scan.read(bytes, start, end);
      if (scan.failedBatches > 0) this.#failed(scan.failedCode, scan.failedBatches);
      if (!lane.isReady && scan.isOpened) {
        lane.isReady = true;
        if (this.#phase === 'opening' && this.#lanes.every((one) => one.isReady)) this.#start();
      }
      this.#answered(lane, Math.floor(scan.acknowledged / this.#frames.batches));
    }
    this.#pump();
  }

  #answered(lane: Lane, upTo: number): void {
    if (this.#phase !== 'measured') {
      lane.answered = upTo;
      return;
    }
    const now = performance.now();
    for (; lane.answered < upTo; lane.answered++) {
      const at = lane.answered % TIMES;
      const latencyMs = now - (lane.dueAt[at] as number);
      record(this.#histogram, latencyMs * 1_000);
      record(this.#raw, (now - (lane.sentAt[at] as number)) * 1_000);
      this.#timeline.add(now, this.#frames.messagesPerFrame, latencyMs);
      this.#answers?.add(now, lane.slot, latencyMs);
      this.#measuredFrames += 1;
      this.#measuredBytes += this.#frameBytes;
    }
    if (lane.answered === this.#task.framesTotal) this.#finish();
  }

  #failed(code: number, batches: number): void {
    if (this.#phase !== 'measured') return;
    this.#errors[code] = (this.#errors[code] ?? 0) + batches;
    this.#failedBatches += batches;
  }

  onEnd(slot: number, status: number): void {
    const lane = this.#lanes[slot] as Lane;
    lane.hasEnded = true;
    if (this.#phase === 'over') return;
    this.#errors[`stream ${status}`] = (this.#errors[`stream ${status}`] ?? 0) + 1;
    if (this.#task.ignoresWindow !== true) this.onLost(`publish stream ${slot} ended with gRPC status ${status}`);
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
    this.#answers?.begin(this.#windowBegan);
    this.#tell({ kind: 'measuring' });
  }

  #finish(): void {
    if (this.#phase !== 'measured') return;
    this.#phase = 'over';
    this.#pacer?.stop();
    const failedMessages = this.#failedBatches * this.#frames.messagesPerBatch;
    this.#tell({
      kind: 'measured',
      result: {
        seconds: (performance.now() - this.#windowBegan) / 1_000,
        frames: this.#measuredFrames,
        messages: Math.max(0, this.#measuredFrames * this.#frames.messagesPerFrame - failedMessages),
        bytes: this.#measuredBytes,
        errors: this.#errors,
        histogram: packHistogram(this.#histogram),
        rawHistogram: packHistogram(this.#raw),
        sendLag: packHistogram(this.#sendLag),
        timeline: this.#timeline.result(),
        busy: performance.eventLoopUtilization(this.#busyAtBegin).utilization,
        answers: this.#answers?.result() ?? null,
      },
    });
    // What is in flight is dropped with the connections: its producers never come back.
    for (const connection of this.#connections) connection.close();
    this.#tell({ kind: 'drained' });
    parentPort?.close();
  }

  #tell(message: FromStream): void {
    parentPort?.postMessage(message);
  }
}

await loadHistograms();
await new StreamGenerator(workerData as StreamTask).run();
