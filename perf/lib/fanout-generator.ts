/**
 * Thread entry: opens server streams and counts what arrives on them. With a publisher, it also publishes, as fast as answers and the
 * slowest stream allow: never more than `window` messages ahead of that stream, so that delivery is measured and not a pile-up.
 */
import { parentPort, workerData } from 'node:worker_threads';
import type { FanoutTask, FromFanout } from './fanout.ts';
import { type FrameWriter, frameWriter } from './frames.ts';
import { GrpcConnection } from './grpc-client.ts';
import { Http2Connection } from './http2-client.ts';
import { TimelineRecorder } from './timeline.ts';
import type { CallListener, Transport } from './transport.ts';

class FanoutGenerator implements CallListener {
  readonly #task: FanoutTask;
  readonly #connections: Transport[] = [];
  readonly #received: Float64Array;
  readonly #frames: FrameWriter | null;
  readonly #freeSlots: number[] = [];
  readonly #errors: Record<string, number> = {};
  #publisher: Transport | null = null;
  #live = 0;
  #published = 0;
  #over = false;
  #began = 0;
  #atBegin: Float64Array = new Float64Array(0);
  #publishedAtBegin = 0;
  #busyAtBegin = performance.eventLoopUtilization();
  readonly #timeline = new TimelineRecorder();

  constructor(task: FanoutTask) {
    this.#task = task;
    this.#received = new Float64Array(task.streams);
    this.#frames = task.publish === null ? null : frameWriter(task.publish.frames);
  }

  async run(): Promise<void> {
    const { client, address, connections, streams, subscribe, publish } = this.#task;
    const open = client === 'raw' ? Http2Connection : GrpcConnection;
    for (let i = 0; i < connections; i++) this.#connections.push(await open.connect(address, this));
    if (publish !== null) {
      this.#publisher = await open.connect(address, this);
      for (let slot = 0; slot < publish.inFlight; slot++) this.#freeSlots.push(streams + slot);
    }
    const request = Buffer.from(subscribe.request);
    for (let slot = 0; slot < streams; slot++) {
      (this.#connections[slot % connections] as Transport).call(slot, subscribe.path, request, request.length);
    }
    for (const connection of this.#connections) connection.flush();
  }

  onHeaders(slot: number): void {
    if (slot >= this.#task.streams) return;
    this.#live += 1;
    if (this.#live < this.#task.streams) return;
    this.#pump();
    setTimeout(() => this.#begin(), this.#task.warmupMs);
    setTimeout(() => this.#finish(), this.#task.warmupMs + this.#task.durationMs);
  }

  onMessage(slot: number): void {
    if (slot >= this.#task.streams) return;
    this.#received[slot] = (this.#received[slot] as number) + 1;
    // Slot 0 stands for a round of all streams; looking at all of them, or at the clock, after each message would cost more than the message.
    if (slot !== 0) return;
    if (this.#began > 0) this.#timeline.add(performance.now(), this.#task.streams, 0);
    if (this.#freeSlots.length > 0) this.#pump();
  }

  onEnd(slot: number, status: number): void {
    if (this.#over) return;
    if (status !== 0) this.#errors[status] = (this.#errors[status] ?? 0) + 1;
    if (slot < this.#task.streams) {
      this.onLost(`stream ${slot} ended with status ${status}`);
      return;
    }
    if (status === 0) this.#published += 1;
    this.#freeSlots.push(slot);
    this.#pump();
  }

  #pump(): void {
    const { publish } = this.#task;
    const frames = this.#frames;
    if (publish === null || frames === null || this.#publisher === null || this.#over) return;
    const slowest = this.#received.reduce((least, count) => Math.min(least, count), Number.POSITIVE_INFINITY);
    while (this.#freeSlots.length > 0) {
      const open = publish.inFlight - this.#freeSlots.length;
      if (this.#published + open - slowest >= publish.window) break;
      const length = frames.write(0);
      this.#publisher.call(this.#freeSlots.pop() as number, publish.path, frames.scratch, length);
    }
    this.#publisher.flush();
  }

  onLost(why: string): void {
    if (this.#over) return;
    this.#over = true;
    this.#tell({ kind: 'failed', why });
  }

  #begin(): void {
    if (this.#over) return;
    this.#began = performance.now();
    this.#busyAtBegin = performance.eventLoopUtilization();
    this.#timeline.begin(this.#began);
    this.#atBegin = this.#received.slice();
    this.#publishedAtBegin = this.#published;
    this.#tell({ kind: 'measuring' });
  }

  #finish(): void {
    if (this.#over) return;
    this.#over = true;
    const seconds = (performance.now() - this.#began) / 1_000;
    const perStream = Array.from(this.#received, (count, slot) => count - (this.#atBegin[slot] as number));
    this.#tell({
      kind: 'measured',
      result: {
        seconds,
        delivered: perStream.reduce((sum, count) => sum + count, 0),
        slowest: Math.min(...perStream),
        fastest: Math.max(...perStream),
        published: this.#published - this.#publishedAtBegin,
        errors: this.#errors,
        timeline: this.#timeline.result(),
        busy: performance.eventLoopUtilization(this.#busyAtBegin).utilization,
      },
    });
    for (const connection of this.#connections) connection.close();
    this.#publisher?.close();
    this.#tell({ kind: 'drained' });
    parentPort?.close();
  }

  #tell(message: FromFanout): void {
    parentPort?.postMessage(message);
  }
}

await new FanoutGenerator(workerData as FanoutTask).run();
