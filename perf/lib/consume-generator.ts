/** Thread entry: opens consume streams, grants credit as it is used, and counts what comes. Bodies are not looked at. */
import { parentPort, workerData } from 'node:worker_threads';
import type { ConsumeTask, FromConsume } from './consume-load.ts';
import { GrpcConnection } from './grpc-client.ts';
import { Http2Connection } from './http2-client.ts';
import { ConsumeResponseScan, consumeFrame, creditFrame } from './stream-frames.ts';
import { TimelineRecorder } from './timeline.ts';
import type { CallListener, Transport } from './transport.ts';

/** Bounded by bytes alone. */
const CREDIT_MESSAGES = 1e12;

class ConsumeGenerator implements CallListener {
  readonly #task: ConsumeTask;
  readonly #connections: Transport[] = [];
  readonly #scan = new ConsumeResponseScan();
  readonly #timeline = new TimelineRecorder();
  readonly #received: Float64Array;
  /** Credit used since it was last granted, by stream. */
  readonly #used: Float64Array;
  readonly #isStarted: boolean[];
  readonly #captured: Uint8Array[] = [];
  readonly #cell: Int32Array | null;
  #slowest = 0;
  #capturedBytes = 0;
  #started = 0;
  #finished = 0;
  #phase: 'opening' | 'warm-up' | 'measured' | 'over' = 'opening';
  #began = 0;
  #busyAtBegin = performance.eventLoopUtilization();
  #atBegin: Float64Array = new Float64Array(0);
  #bytes = 0;
  #frames = 0;

  constructor(task: ConsumeTask) {
    this.#task = task;
    this.#received = new Float64Array(task.streams);
    this.#used = new Float64Array(task.streams);
    this.#isStarted = Array.from({ length: task.streams }, () => false);
    this.#cell = task.progress === undefined ? null : new Int32Array(task.progress);
  }

  async run(): Promise<void> {
    const { client, address, connections, streams, path, protocol, subjects, start, creditBytes } = this.#task;
    const open = client === 'raw' ? Http2Connection : GrpcConnection;
    for (let i = 0; i < connections; i++) this.#connections.push(await open.connect(address, this));
    // A replay is measured from its very beginning.
    if (this.#task.messagesPerStream !== null) this.#begin();
    for (let slot = 0; slot < streams; slot++) {
      const connection = this.#connections[slot % connections] as Transport;
      if (protocol === 'stream') {
        connection.call(slot, path, Buffer.alloc(0), 0);
        continue;
      }
      connection.open(slot, path);
      const first =
        protocol === 'broker'
          ? consumeFrame({ subjects, start, creditBytes, creditMessages: CREDIT_MESSAGES })
          : bareCredit(creditBytes);
      connection.send(slot, first, first.length);
    }
    for (const connection of this.#connections) connection.flush();
  }

  onHeaders(slot: number): void {
    if (this.#task.protocol !== 'broker') this.#streamStarted(slot);
  }

  #streamStarted(slot: number): void {
    if (this.#isStarted[slot] === true) return;
    this.#isStarted[slot] = true;
    if (++this.#started < this.#task.streams) return;
    this.#tell({ kind: 'started' });
    if (this.#task.messagesPerStream !== null) return;
    this.#phase = 'warm-up';
    setTimeout(() => this.#begin(), this.#task.warmupMs);
    setTimeout(() => this.#finish(), this.#task.warmupMs + this.#task.durationMs);
  }

  onMessage(slot: number, bytes: Buffer, start: number, end: number): void {
    if (this.#phase === 'over') return;
    const { captureBytes, messagesPerStream } = this.#task;
    const scan = this.#scan;
    scan.isStarted = false;
    scan.read(bytes, start, end);
    if (scan.isStarted) this.#streamStarted(slot);
    if (scan.messages === 0) return;
    if (this.#capturedBytes < captureBytes) {
      this.#captured.push(Uint8Array.from(bytes.subarray(start, end)));
      this.#capturedBytes += end - start;
    }
    const before = this.#received[slot] as number;
    this.#received[slot] = before + scan.messages;
    this.#grant(slot, this.#task.protocol === 'broker' ? scan.sectionBytes : end - start);
    if (this.#phase === 'measured') {
      this.#bytes += end - start;
      this.#frames += 1;
      this.#timeline.add(performance.now(), scan.messages, 0);
    }
    if (slot === this.#slowest) this.#tellProgress();
    if (messagesPerStream !== null && before < messagesPerStream && before + scan.messages >= messagesPerStream) {
      this.#finished += 1;
      if (this.#finished === this.#task.streams) this.#finish();
    }
  }

  /** Looked for only when the slowest stream has moved: looking at all after each frame would cost more than the frame. */
  #tellProgress(): void {
    if (this.#cell === null) return;
    for (const [slot, count] of this.#received.entries()) {
      if (count < (this.#received[this.#slowest] as number)) this.#slowest = slot;
    }
    Atomics.store(this.#cell, 0, this.#received[this.#slowest] as number);
  }

  #grant(slot: number, bytes: number): void {
    const { protocol, creditBytes, connections } = this.#task;
    if (protocol === 'stream') return;
    const used = (this.#used[slot] as number) + bytes;
    this.#used[slot] = used;
    if (used < creditBytes / 2) return;
    this.#used[slot] = 0;
    const frame = protocol === 'broker' ? creditFrame(used, 0) : bareCredit(used);
    (this.#connections[slot % connections] as Transport).send(slot, frame, frame.length);
  }

  onEnd(slot: number, status: number): void {
    if (this.#phase !== 'over') this.onLost(`consume stream ${slot} ended with gRPC status ${status}`);
  }

  onLost(why: string): void {
    if (this.#phase === 'over') return;
    this.#phase = 'over';
    this.#tell({ kind: 'failed', why });
  }

  #begin(): void {
    if (this.#phase === 'over') return;
    this.#phase = 'measured';
    this.#began = performance.now();
    this.#busyAtBegin = performance.eventLoopUtilization();
    this.#atBegin = this.#received.slice();
    this.#timeline.begin(this.#began);
    this.#tell({ kind: 'measuring' });
  }

  #finish(): void {
    if (this.#phase !== 'measured') return;
    this.#phase = 'over';
    const perStream = Array.from(this.#received, (count, slot) => count - (this.#atBegin[slot] as number));
    this.#tell({
      kind: 'measured',
      result: {
        seconds: (performance.now() - this.#began) / 1_000,
        messages: perStream.reduce((sum, count) => sum + count, 0),
        bytes: this.#bytes,
        frames: this.#frames,
        slowest: Math.min(...perStream),
        fastest: Math.max(...perStream),
        captured: this.#captured,
        timeline: this.#timeline.result(),
        busy: performance.eventLoopUtilization(this.#busyAtBegin).utilization,
      },
    });
    for (const connection of this.#connections) connection.close();
    this.#tell({ kind: 'drained' });
    parentPort?.close();
  }

  #tell(message: FromConsume): void {
    parentPort?.postMessage(message);
  }
}

function bareCredit(bytes: number): Buffer {
  const frame = Buffer.alloc(8);
  frame.writeDoubleLE(bytes);
  return frame;
}

await new ConsumeGenerator(workerData as ConsumeTask).run();
