/** Memory of frames between the broker and a socket that takes nothing for a while: what the client gets is what was written. */
import assert from 'node:assert/strict';
import type { ServerHttp2Stream } from 'node:http2';
import { it, type TestContext } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import type { ServerWritableStream } from '@grpc/grpc-js';
import { DeliveryStream } from '../../src/grpc/delivery-stream.ts';
import { makeStatus } from '../../src/grpc/status.ts';
import { FramePool } from '../../src/workers/front/frame-pool.ts';
import { Frame, frame, headersFrame, messageFrame, RawConnection, resetFrame } from '../support/http2-frames.ts';
import { eventually, startServer, TestEngine } from './grpc-rig.ts';

/** More than the buffers of the kernel hold, so that the socket is full, and less than is written, so that something waits in HTTP/2. */
const WINDOW_BYTES = 16 << 20;
const FRAME_BYTES = 128 << 10;
const FRAMES = 192;
const INITIAL_WINDOW_SIZE = 4;

function collectGarbage(): void {
  setFlagsFromString('--expose-gc');
  (runInNewContext('gc') as () => void)();
}

/** One stream whose client has stopped reading while most of what was written is on its way. */
class Stuck {
  readonly pool = new FramePool();
  readonly raw: RawConnection;
  readonly out: DeliveryStream;
  readonly stream: ServerHttp2Stream;
  sent = 0;
  failed = 0;

  private constructor(raw: RawConnection, call: ServerWritableStream<Buffer, Buffer>) {
    this.raw = raw;
    this.out = new DeliveryStream(call);
    this.stream = (call as unknown as { call: { stream: ServerHttp2Stream } }).call.stream;
    // What the test does to it is none of grpc-js's errors.
    this.stream.on('error', () => undefined);
  }

  static async open(t: TestContext): Promise<Stuck> {
    const engine = new TestEngine();
    const server = await startServer(t, { engine });
    const raw = await RawConnection.open(t, server.address);
    const settings = Buffer.alloc(6);
    settings.writeUInt16BE(INITIAL_WINDOW_SIZE, 0);
    settings.writeUInt32BE(WINDOW_BYTES, 2);
    const more = Buffer.alloc(4);
    more.writeUInt32BE(2 * WINDOW_BYTES, 0);
    raw.socket.write(Buffer.concat([frame(Frame.SETTINGS, 0, 0, settings), frame(Frame.WINDOW_UPDATE, 0, 0, more)]));
    raw.socket.write(Buffer.concat([headersFrame(1, '/broker.Broker/Subscribe'), messageFrame(1, Buffer.from('s'))]));
    await eventually(t, () => engine.streams.length === 1);
    const stuck = new Stuck(raw, engine.streams[0] as ServerWritableStream<Buffer, Buffer>);
    stuck.out.open();
    await raw.until(() => raw.count(Frame.HEADERS) === 1);
    raw.socket.pause();
    stuck.#write();
    await eventually(t, () => stuck.sent > 0);
    await stuck.turns();
    assert(stuck.sent < FRAMES, 'the socket took everything');
    return stuck;
  }

  #write(): void {
    for (let i = 0; i < FRAMES; i++) {
      const pooled = this.pool.take(FRAME_BYTES);
      pooled.bytes.fill(i + 1);
      this.out.write(pooled.bytes, (error) => {
        if (error === undefined || error === null) {
          this.sent += 1;
          pooled.release();
        } else this.failed += 1;
      });
    }
  }

  /** Memory that is free is used again, in the pool and outside of it. */
  async scribble(): Promise<void> {
    const noise: Buffer[] = [];
    for (let round = 0; round < 3; round++) {
      collectGarbage();
      await this.turns();
      for (let i = 0; i < FRAMES; i++) {
        this.pool.take(FRAME_BYTES).bytes.fill(0xff);
        noise.push(Buffer.allocUnsafeSlow(FRAME_BYTES).fill(0xff));
      }
    }
    assert.equal(noise.length, 3 * FRAMES);
  }

  async turns(): Promise<void> {
    for (let i = 0; i < 20; i++) await new Promise((resolve) => setImmediate(resolve));
  }

  /** How much of the stream has come, and how much of that is not what was written. */
  received(): { readonly bytes: number; readonly wrong: number } {
    let bytes = 0;
    let wrong = 0;
    for (const { type, stream, payload } of this.raw.frames) {
      if (type !== Frame.DATA || stream !== 1) continue;
      for (const byte of payload) {
        if (byte !== 1 + Math.floor(bytes / FRAME_BYTES)) wrong += 1;
        bytes += 1;
      }
    }
    return { bytes, wrong };
  }
}

it('frames on their way when their session is destroyed keep their memory until it has closed', {
  timeout: 30_000,
}, async (t) => {
  const stuck = await Stuck.open(t);
  stuck.stream.session?.destroy();
  await eventually(t, () => stuck.sent + stuck.failed === FRAMES);
  assert(stuck.failed > 0);
  await stuck.scribble();
  stuck.raw.socket.resume();
  await stuck.raw.until(() => stuck.raw.closed);
  const { bytes, wrong } = stuck.received();
  assert(bytes > FRAME_BYTES, `only ${bytes} bytes came`);
  assert.equal(wrong, 0);
});

it('frames of a stream that the server resets go unharmed as far as they had got', { timeout: 30_000 }, async (t) => {
  const stuck = await Stuck.open(t);
  stuck.out.reset();
  await stuck.scribble();
  stuck.raw.socket.resume();
  await stuck.raw.until(() => stuck.raw.count(Frame.RST_STREAM) === 1);
  await eventually(t, () => stuck.sent + stuck.failed === FRAMES);
  const { bytes, wrong } = stuck.received();
  assert.equal(bytes, WINDOW_BYTES);
  assert.equal(wrong, 0);
});

it('frames of a stream that its client resets while the socket is full go unharmed as far as they had got', {
  timeout: 30_000,
}, async (t) => {
  const stuck = await Stuck.open(t);
  stuck.raw.socket.write(resetFrame(1));
  await stuck.scribble();
  stuck.raw.socket.resume();
  await eventually(t, () => stuck.sent + stuck.failed === FRAMES);
  await stuck.turns();
  const { bytes, wrong } = stuck.received();
  assert(bytes > FRAME_BYTES, `only ${bytes} bytes came`);
  assert.equal(wrong, 0);
});

it('a status that waits behind what its client does not read gives way to a reset', { timeout: 30_000 }, async (t) => {
  const stuck = await Stuck.open(t);
  stuck.out.end(makeStatus('SHUTTING_DOWN', ''), 20);
  stuck.raw.socket.resume();
  await stuck.raw.until(() => stuck.raw.count(Frame.RST_STREAM) === 1);
  await eventually(t, () => stuck.sent + stuck.failed === FRAMES);
  assert(stuck.failed > 0);
});
