/** What comes over the Raft port: greetings, frames, snapshots, and the commands of other nodes. */
import { crc32 } from 'node:zlib';
import { AllotMachine } from '../../../src/allot/allot-machine.ts';
import {
  NODE_STARTED_AFTER_BYTES,
  originRunSize,
  originSize,
  writeNodeStartedAfter,
  writeOriginRun,
} from '../../../src/allot/commands.ts';
import { soundRun } from '../../../src/allot/sound-run.ts';
import { AssertionError } from '../../../src/base/assert.ts';
import { FRAME_HEADER_BYTES, FrameReader, sealFrame } from '../../../src/net/framing.ts';
import { GreetingCodec, GreetingReader } from '../../../src/net/hello.ts';
import { FrameCodec } from '../../../src/net/raft-frames.ts';
import { chunkHead, decodeSnapshotFrame, endFrame, headerFrame } from '../../../src/net/snapshot-frames.ts';
import { WireError } from '../../../src/net/wire-error.ts';
import { ENTRY_CONFIG, ENTRY_NORMAL, type Entry, makeMessage } from '../../../src/raft/messages.ts';
import type { PeerFrame } from '../../../src/replica/types.ts';
import { SnapshotIntake } from '../../../src/workers/raft/snapshot-transfer.ts';
import { type Command, encode, HOME, LIMITS } from '../../unit/allot-rig.ts';
import { accepts, choiceOf, expect, type FuzzTarget, piecesOf } from '../target.ts';

const MIB = 1 << 20;
const codec = new FrameCodec();
const greetings = new GreetingCodec();
const MAGIC_BYTES = 4;

const isWireError = (error: unknown): boolean => error instanceof WireError;

/** Length and checksum of each frame from `start` on; the last one ends where the bytes end. */
function repairFrames(bytes: Buffer, start = 0): Buffer {
  for (let at = start; at + FRAME_HEADER_BYTES < bytes.length; ) {
    const room = bytes.length - at - FRAME_HEADER_BYTES;
    let length = bytes.readUInt32LE(at);
    if (length === 0 || length > room) {
      if (choiceOf(bytes.subarray(at), 8) === 0) return bytes;
      length = room;
    }
    const end = at + FRAME_HEADER_BYTES + length;
    bytes.writeUInt32LE(length, at);
    bytes.writeUInt32LE(crc32(bytes.subarray(at + FRAME_HEADER_BYTES, end)), at + 4);
    at = end;
  }
  return bytes;
}

const SNAPSHOT = { index: 9, term: 2, config: { voters: ['a', 'b'], learners: ['c'] }, ref: 'snap' };

function frameSeeds(): PeerFrame[] {
  const entries: readonly Entry[] = [
    { term: 1, index: 5, type: ENTRY_NORMAL, data: Buffer.from('data') },
    { term: 2, index: 6, type: ENTRY_CONFIG, data: Buffer.alloc(0) },
  ];
  return [
    {
      kind: 'raft',
      message: makeMessage({ type: 'append', from: 'a', to: 'b', term: 2, index: 4, logTerm: 1, entries }),
    },
    { kind: 'raft', message: makeMessage({ type: 'vote', from: 'a', to: 'b', term: 7 }) },
    { kind: 'raft', message: makeMessage({ type: 'snapshot', from: 'a', to: 'b', term: 7, snapshot: SNAPSHOT }) },
    {
      kind: 'runs',
      runs: [Buffer.from('run'), Buffer.alloc(40, 1)],
      traces: [{ index: 1, context: Buffer.alloc(25, 3) }],
    },
    { kind: 'member', member: { node: 'a', instance: 'i', raft: '10.0.0.1:1', grpc: '10.0.0.1:2', protocol: 1 } },
    { kind: 'clock', wallMs: 1_700_000_000_000 },
  ];
}

/** Calls `onBody` for each frame, cut anywhere; false where the reader refuses. */
function readFrames(bytes: Buffer, onBody: (body: Buffer) => void): boolean {
  const reader = new FrameReader();
  return accepts(isWireError, () => {
    for (const piece of piecesOf(bytes)) reader.push(piece, onBody);
  });
}

const frames: FuzzTarget = {
  name: 'raft-frames',
  about: 'frames of the Raft port, cut anywhere; what was read is written and read the same',
  memoryBytes: 2 * MIB,
  seeds: () => {
    const all = frameSeeds().map((frame) => codec.encode(frame));
    return [...all, Buffer.concat(all)];
  },
  repair: (bytes) => repairFrames(bytes),
  run: (bytes) => {
    let taken = 0;
    const isWhole = readFrames(bytes, (body) => {
      const frame = codec.decode(body);
      const written = codec.encode(frame);
      const again = codec.encode(codec.decode(written.subarray(FRAME_HEADER_BYTES)));
      expect(again.equals(written), 'read otherwise the second time', () => written.toString('hex'));
      taken += 1;
    });
    return isWhole && taken > 0;
  },
};

const HELLO = {
  versionMin: 1,
  versionMax: 1,
  clusterId: 'cluster',
  node: 'a',
  instance: 'i',
  targetNode: 'b',
  targetInstance: '',
  purpose: 'frames',
} as const;

const hello: FuzzTarget = {
  name: 'raft-hello',
  about: 'greetings of the Raft port and their answers, cut anywhere',
  memoryBytes: MIB,
  seeds: () => [
    greetings.encodeHello(HELLO),
    greetings.encodeHello({ ...HELLO, purpose: 'snapshot', targetInstance: 'x'.repeat(255) }),
    greetings.encodeAnswer({ version: 1 }),
    greetings.encodeAnswer({ refusal: { code: 'BUSY', words: 'too many' } }),
  ],
  repair: (bytes) => {
    if (bytes.length < MAGIC_BYTES) return bytes;
    bytes.write('BRKR', 0, 'latin1');
    return repairFrames(bytes, MAGIC_BYTES);
  },
  run: (bytes) => {
    const reader = new GreetingReader();
    let body: Buffer | null = null;
    let taken = 0;
    const isRead = accepts(isWireError, () => {
      for (const piece of piecesOf(bytes)) {
        taken += piece.length;
        const found = reader.push(piece);
        if (found === null) continue;
        body = found.body;
        const behind = MAGIC_BYTES + FRAME_HEADER_BYTES + found.body.length;
        expect(found.rest.equals(bytes.subarray(behind, taken)), 'other bytes behind the greeting');
        break;
      }
    });
    const whole = body as Buffer | null;
    if (!isRead || whole === null) return false;
    const isHello = accepts(isWireError, () => {
      const written = greetings.encodeHello(greetings.decodeHello(whole));
      const again = greetings.encodeHello(greetings.decodeHello(written.subarray(MAGIC_BYTES + FRAME_HEADER_BYTES)));
      expect(again.equals(written), 'another hello the second time');
    });
    const isAnswer = accepts(isWireError, () => {
      const written = greetings.encodeAnswer(greetings.decodeAnswer(whole));
      const again = greetings.encodeAnswer(greetings.decodeAnswer(written.subarray(MAGIC_BYTES + FRAME_HEADER_BYTES)));
      expect(again.equals(written), 'another answer the second time');
    });
    return isHello || isAnswer;
  },
};

const snapshots: FuzzTarget = {
  name: 'raft-snapshot',
  about: 'a snapshot over the Raft port: its frames, and the pieces of the file in them',
  memoryBytes: 4 * MIB,
  seeds: () => {
    const meta = Buffer.from([4, 0, 0, 0, 1, 2, 3, 4]);
    const chunk = Buffer.concat([Buffer.from([200, 0, 0, 0]), Buffer.alloc(200, 5)]);
    const head = headerFrame(codec, makeMessage({ type: 'snapshot', from: 'a', to: 'b', term: 7, snapshot: SNAPSHOT }));
    const end = endFrame(meta.length + chunk.length, crc32(Buffer.concat([meta, chunk])));
    const parts = [head, chunkHead(0, meta), meta, chunkHead(meta.length, chunk), chunk, end];
    return [Buffer.concat(parts), head, end, sealFrame(Buffer.concat([Buffer.alloc(8), Buffer.of(2)]))];
  },
  repair: (bytes) => repairFrames(bytes),
  run: (bytes) => {
    const pieces: Uint8Array[] = [];
    // A writer that takes what the disk would: the file itself is snapshot-file's.
    const writer = { write: (chunk: Uint8Array) => pieces.push(chunk), abort: () => undefined };
    const intake = new SnapshotIntake((meta) => {
      pieces.push(meta);
      return writer as never;
    });
    let content = 0;
    let isEnded = false;
    const isWhole = readFrames(bytes, (body) => {
      const frame = decodeSnapshotFrame(codec, body);
      if (frame.kind === 'chunk') {
        content += frame.bytes.length;
        isEnded ||= !accepts(
          (error) => error instanceof AssertionError,
          () => {
            if (!isEnded) intake.write(frame.bytes);
          },
        );
      }
    });
    expect(pieces.reduce((sum, { length }) => sum + length, 0) <= content, 'more came out than went in');
    return isWhole && pieces.length > 0;
  },
};

/** As another node sends them. */
function encodeRun(number: number, list: readonly Command[]): Uint8Array {
  return runOf(number, encode(HOME, list).subarray(originSize(HOME.node.length)));
}

/** The first of an incarnation, as nodes begin today. */
function firstRun(keepOpen: boolean, after: number): Uint8Array {
  const body = Buffer.alloc(NODE_STARTED_AFTER_BYTES);
  writeNodeStartedAfter(new DataView(body.buffer, body.byteOffset, body.length), 0, keepOpen, after);
  return runOf(1, body);
}

function runOf(number: number, body: Uint8Array): Uint8Array {
  const node = Buffer.from(HOME.node);
  const bytes = Buffer.alloc(originRunSize(node.length) + body.length);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const at = writeOriginRun(view, bytes, 0, node, HOME.incarnation, 7, number, body.length);
  bytes.set(body, at);
  return bytes;
}

const run: FuzzTarget = {
  name: 'peer-run',
  about: 'commands of another node: what is called sound is applied without a broken assertion',
  memoryBytes: 4 * MIB,
  lengthMax: 512,
  seeds: () => [
    firstRun(true, 0),
    firstRun(false, 1),
    encodeRun(1, [
      { do: 'node-started', keepOpen: false },
      { do: 'open', subject: 'a.b', count: 3 },
    ]),
    encodeRun(2, [
      {
        do: 'open',
        subject: 'a',
        parts: [{ count: 1, producer: 'p', sequence: 4 }, { count: 2 }],
        expectedHead: 0,
        expiresMax: 9,
      },
      { do: 'stored', subject: 'a', base: 1 },
    ]),
    encodeRun(2, [
      { do: 'producer', producer: 'p', mayBeNew: true },
      { do: 'revoke-node', node: 'b' },
    ]),
    encodeRun(2, [
      { do: 'trim', subject: 'a', first: 1 },
      { do: 'void', subject: 'a', base: 1 },
    ]),
  ],
  repair: (bytes) => {
    const end = 22 + (bytes[1] ?? 0);
    if (bytes.length > end) bytes.writeUInt32LE(bytes.length - end, 18);
    return bytes;
  },
  run: (bytes) => {
    if (soundRun(bytes) === null) return false;
    const machine = new AllotMachine(LIMITS);
    // Its own first run, so that the incarnation is known, and then this one.
    machine.apply(1, 1_000, STARTED, SINK);
    machine.apply(2, 2_000, Uint8Array.from(bytes), SINK);
    machine.hash();
    return true;
  },
};

const nothing = (): void => undefined;
const SINK = new Proxy({}, { get: () => nothing }) as never;
const STARTED = encodeRun(1, [
  { do: 'node-started', keepOpen: true },
  { do: 'open', subject: 'a', count: 3 },
]);

export const RAFT_PORT_TARGETS: readonly FuzzTarget[] = [frames, hello, snapshots, run];
