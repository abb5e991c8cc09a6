/** What clients and other nodes write to streams: gRPC's frames, and the messages in them. */
import { isDeepStrictEqual } from 'node:util';
import type { ServerDuplexStream } from '@grpc/grpc-js';
import { StreamDecoder } from '@grpc/grpc-js/build/src/stream-decoder.js';
import { subjectFault } from '../../../src/base/subject.ts';
import type { Decoder } from '../../../src/grpc/base-call.ts';
import { PRODUCER_BYTES_MAX } from '../../../src/grpc/codec.ts';
import { ConsumeScan, cutFrame, deliveryBytes, scanConsume, writeDelivery } from '../../../src/grpc/consumer-codec.ts';
import { frameOf } from '../../../src/grpc/frame.ts';
import { FrameIntake } from '../../../src/grpc/frame-intake.ts';
import { FrameMemory } from '../../../src/grpc/frame-memory.ts';
import { ConsumeRequest } from '../../../src/grpc/gen/broker/v1/consumer.ts';
import { PeerMessage } from '../../../src/grpc/gen/broker/v1/peer.ts';
import { PublishStreamRequest } from '../../../src/grpc/gen/broker/v1/producer.ts';
import {
  encodeBatch,
  encodeBroadcast,
  encodeHello,
  encodeInterest,
  encodeKeepalive,
  encodeProof,
  type PeerParts,
  PeerReader,
} from '../../../src/grpc/peer-codec.ts';
import { FramePart, FrameScan } from '../../../src/grpc/producer-codec.ts';
import { ReceiveBudget } from '../../../src/grpc/receive-budget.ts';
import { ReceivedGarbage } from '../../../src/grpc/received-garbage.ts';
import { loadOracle } from '../../unit/grpc-oracle.ts';
import { choiceOf, expect, type FuzzTarget, piecesOf } from '../target.ts';

const MIB = 1 << 20;
const consumeRequest = loadOracle('broker.v1.ConsumeRequest', { stringsAsBytes: true });
const publishStreamRequest = loadOracle('broker.v1.PublishStreamRequest', { stringsAsBytes: true });

const RECORD = { body: Buffer.from('body'), headers: [], expirationSeconds: 0 };
const PUBLISHES = [
  PublishStreamRequest.encode({ open: { producerId: 'p-1', firstSequence: 7 }, batches: [] }).finish(),
  PublishStreamRequest.encode({
    open: undefined,
    batches: [
      { subject: 'a.b', sequence: 1, records: { records: [RECORD, RECORD] }, expectedLastId: undefined },
      { subject: 'a.c', sequence: 2, records: { records: [RECORD] }, expectedLastId: 41 },
    ],
  }).finish(),
];

const frameScan = new FrameScan();

interface Batch {
  readonly subject: Uint8Array;
  readonly sequence: string;
  readonly records: { readonly records: readonly unknown[] } | null;
}

const producerFrames: FuzzTarget = {
  name: 'publish-stream',
  about: 'frames of a publish stream, against protobufjs',
  memoryBytes: MIB,
  seeds: () => PUBLISHES,
  run: (frame) => {
    const scan = frameScan;
    const found: string[] = [];
    scan.reset(frame, 0);
    for (let part = scan.next(); part !== FramePart.END; part = scan.next()) {
      if (part === FramePart.MALFORMED) return false;
      expect(scan.offset <= frame.length, 'a part ends behind its frame');
      if (part === FramePart.OPEN) {
        const open = scan.open();
        if (typeof open === 'string') return false;
        expect(open.producer.length <= PRODUCER_BYTES_MAX && open.firstSequence >= 1, 'an open that must not be');
        continue;
      }
      const { subjectStart, subjectEnd, sectionStart, sectionEnd, sequence, count } = scan;
      const isInside = (start: number, end: number): boolean => start >= 0 && start <= end && end <= frame.length;
      expect(isInside(subjectStart, subjectEnd) && isInside(sectionStart, sectionEnd), 'a batch outside of its frame');
      // What the scan calls faulty may be anything; what it counts has to be there.
      if (scan.fault !== null || sequence < 0) return false;
      found.push(`${frame.toString('latin1', subjectStart, subjectEnd)} ${sequence} ${count}`);
    }
    // Whether the records make sense is for records-section: protobufjs looks into them, and this scan does not.
    if (found.length === 0) return true;
    let theirs: readonly Batch[];
    try {
      theirs = publishStreamRequest.decode(frame).batches as readonly Batch[];
    } catch {
      return false;
    }
    const told = theirs.map(
      ({ subject, sequence, records }) =>
        `${Buffer.from(subject).toString('latin1')} ${sequence} ${records?.records.length ?? 0}`,
    );
    // Of a section that comes twice protobuf merges both, and the scan takes the last: the broker's own rule, which no client library makes use of.
    const isTwice = theirs.length === found.length && !isDeepStrictEqual(found, told);
    if (isTwice) {
      const subjects = (list: readonly string[]): string[] => list.map((line) => line.slice(0, line.lastIndexOf(' ')));
      expect(isDeepStrictEqual(subjects(found), subjects(told)), 'other batches than protobufjs', () => [found, told]);
      return true;
    }
    expect(isDeepStrictEqual(found, told), 'other batches than protobufjs', () => [found, told]);
    return true;
  },
};

const SPECS_MAX = 16;
const consumeScan = new ConsumeScan();

const consumerFrames: FuzzTarget = {
  name: 'consume-stream',
  about: 'frames of a consume stream, against protobufjs',
  memoryBytes: MIB,
  seeds: () => [
    ConsumeRequest.encode({
      open: {
        subjects: [
          { subject: 'a.*', earliest: true },
          { subject: 'b', id: 5 },
        ],
        resumeToken: Buffer.from('token'),
        heartbeatMs: 100,
      },
      credit: { bytes: 1 << 20, messages: 1_000 },
    }).finish(),
    ConsumeRequest.encode({ open: undefined, credit: { bytes: 1, messages: Number.MAX_SAFE_INTEGER } }).finish(),
  ],
  run: (frame) => {
    if (scanConsume(frame, SPECS_MAX, consumeScan) !== null) return false;
    const { opening, bytes, messages } = consumeScan;
    expect(bytes >= 0 && messages >= 0, 'credit below zero');
    if (opening !== null) {
      expect(opening.specs.length >= 1 && opening.specs.length <= SPECS_MAX, 'a number of subjects that must not be');
      expect(opening.heartbeatMs >= 100 && opening.heartbeatMs <= 600_000, 'a heartbeat beyond its limits');
    }
    const theirs = consumeRequest.decode(frame) as {
      readonly open: { readonly subjects: readonly { readonly subject: Buffer }[] } | null;
    };
    const names = opening?.specs.map(({ name }) => name.toString('latin1')) ?? [];
    const told = theirs.open?.subjects.map(({ subject }) => subject.toString('latin1')) ?? [];
    // Of an open that comes twice protobuf merges both, and the scan takes the last.
    const isTail = isDeepStrictEqual(names, told.slice(told.length - names.length));
    expect((opening === null) === (theirs.open === null) && isTail, 'protobufjs reads other subjects', () => [
      names,
      told,
    ]);
    return true;
  },
};

const delivery: FuzzTarget = {
  name: 'cut-delivery',
  about: 'a frame of deliveries, written and cut by credit: what is left is what was there',
  memoryBytes: MIB,
  seeds: () => [Buffer.from([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]), Buffer.alloc(60, 0x41)],
  run: (bytes) => {
    // The bytes choose: sizes of records, first id, next, and both credits.
    if (bytes.length < 5) return false;
    const [firstId, skip, creditBytes, creditMessages] = [
      1 + bytes.readUInt8(0),
      bytes.readUInt8(1),
      bytes.readUInt16LE(2),
      bytes.readUInt8(4),
    ];
    const sizes = [...bytes.subarray(5, 40)];
    const records = sizes.map((size, i) =>
      Buffer.concat([Buffer.from([0x1a, size & 0x7f]), Buffer.alloc(size & 0x7f, i)]),
    );
    const section = Buffer.concat(records);
    const head = { firstId, count: records.length, publishedAt: 5 };
    const subject = Buffer.from('a.b');
    const part = Buffer.alloc(deliveryBytes(subject.length, head, section.length));
    writeDelivery(part, 0, subject, head, section, 0, section.length);
    const next = firstId + (skip % (records.length + 2));
    const cut = cutFrame(frameOf(part), next, creditBytes, creditMessages);
    const isNothing = firstId + records.length <= next || creditBytes === 0 || creditMessages === 0;
    expect((cut.frame === null) === isNothing, 'cut where it must not be', () => cut);
    if (cut.frame === null) return false;
    const kept = Buffer.concat(records.slice(Math.max(0, next - firstId)));
    expect(cut.bytes === kept.length && cut.frame.indexOf(kept) >= 0, 'other records are left', () => cut);
    return true;
  },
};

const MESSAGE_BYTES_MAX = 2_048;

/** A stream and a call as far as the intake knows them: the rest of grpc-js is behind sockets. */
function intakeOf(onFrame: (frame: Buffer) => void, onRefused: () => void) {
  const decoder = new StreamDecoder(MESSAGE_BYTES_MAX);
  const nothing = (): void => undefined;
  const stream = { close: nothing, pause: nothing, resume: nothing, aborted: false, destroyed: false, closed: false };
  const base = { stream, decoder: decoder as unknown as Decoder };
  const call = { call: base, on: nothing, pause: nothing, resume: nothing };
  new FrameIntake(call as unknown as ServerDuplexStream<Buffer, Buffer>, shared, onFrame, onRefused);
  return base;
}

const shared = {
  memory: new FrameMemory(),
  garbage: new ReceivedGarbage(),
  budget: new ReceiveBudget(64 << 20, 30_000, 60_000),
};

/** Frames until one that is none of the intake's: compressed, or too long. `missing`: bytes that the last one lacks. */
function plainFrames(bytes: Buffer): { readonly frames: Buffer[]; readonly missing: number } {
  const frames: Buffer[] = [];
  for (let at = 0; at + 5 <= bytes.length; ) {
    const length = bytes.readUInt32BE(at + 1);
    if (bytes[at] !== 0 || length > MESSAGE_BYTES_MAX) break;
    if (at + 5 + length > bytes.length) return { frames, missing: at + 5 + length - bytes.length };
    frames.push(bytes.subarray(at + 5, at + 5 + length));
    at += 5 + length;
  }
  return { frames, missing: 0 };
}

const frames: FuzzTarget = {
  name: 'frame-intake',
  about: 'gRPC frames, cut anywhere, in front of the decoder of grpc-js',
  memoryBytes: 4 * MIB,
  seeds: () => [
    Buffer.concat([frameOf(Buffer.from('one')), frameOf(Buffer.alloc(0)), frameOf(Buffer.alloc(300, 3))]),
    Buffer.concat([frameOf(Buffer.alloc(MESSAGE_BYTES_MAX, 1)), Buffer.from([1, 0, 0, 0, 2, 3, 4])]),
  ],
  run: (input) => {
    const got: Buffer[] = [];
    // Most are ended, so that the memory of the last frame goes back to where it is taken from again.
    const { missing } = choiceOf(input, 16) === 0 ? { missing: 0 } : plainFrames(input);
    const bytes = missing === 0 ? input : Buffer.concat([input, Buffer.alloc(missing)]);
    const base = intakeOf(
      (frame) => got.push(Buffer.from(frame)),
      () => expect(false, 'refused'),
    );
    let isTooLong = false;
    for (const piece of piecesOf(bytes)) {
      try {
        // What grpc-js's decoder returns is its own, behind the last frame of the intake.
        base.decoder.write(piece);
      } catch (error) {
        isTooLong = error instanceof Error && error.message.startsWith('Received message larger than max');
        if (!isTooLong) throw error;
        break;
      }
    }
    const wanted = plainFrames(bytes).frames;
    expect(isDeepStrictEqual(got, wanted), 'other frames', () => [got.length, wanted.length, isTooLong]);
    return got.length > 0;
  },
};

const peerReader = new PeerReader();
const HELLO = {
  clusterId: 'c',
  nodeId: 'n',
  instanceId: 'i',
  incarnation: 1,
  version: 1,
  messageBytesMax: MIB,
  challenge: 'x',
};

const peers: FuzzTarget = {
  name: 'peer-stream',
  about: 'messages between nodes, against the generated code',
  memoryBytes: MIB,
  seeds: () => {
    const source = Buffer.from('subjectBATCHBYTES');
    const batch = encodeBatch({ base: 7, count: 2, publishedAt: 1_700_000_000_000 }, source, 0, 7, source.length);
    const interest = {
      everything: false,
      first: true,
      last: true,
      added: [Buffer.from('a.b')],
      removed: [Buffer.from('c')],
    };
    return [
      encodeHello(HELLO),
      encodeInterest(interest),
      Buffer.concat([batch, encodeBroadcast(Buffer.from('request')), encodeProof('proof'), encodeKeepalive()]),
    ];
  },
  run: (message) => {
    const counts = { hello: 0, interest: 0, batch: 0, broadcast: 0, proof: 0 };
    const parts: PeerParts = {
      hello: () => {
        counts.hello += 1;
      },
      interest: () => {
        counts.interest += 1;
      },
      batch: (bytes, scan) => {
        counts.batch += 1;
        const isInside = [scan.subjectEnd, scan.batchEnd, scan.traceEnd].every((end) => end <= bytes.length);
        expect(isInside && scan.base >= 1 && scan.count >= 1 && scan.batchEnd > scan.batchStart, 'an unsound batch');
      },
      broadcast: () => {
        counts.broadcast += 1;
      },
      proof: () => {
        counts.proof += 1;
      },
    };
    if (!peerReader.read(message, parts)) return false;
    let theirs: PeerMessage;
    try {
      theirs = PeerMessage.decode(message);
    } catch (error) {
      // The generated code refuses numbers beyond 2^53, where the reader says "not told", and bad UTF-8 it takes as the reader does.
      expect(String(error).includes('MAX_SAFE_INTEGER') || String(error).includes('MIN_SAFE_INTEGER'), String(error));
      return true;
    }
    const told = [theirs.interests.length, theirs.batches.length, theirs.broadcasts.length, theirs.proofs.length];
    const found = [counts.interest, counts.batch, counts.broadcast, counts.proof];
    expect(isDeepStrictEqual(found, told) && counts.hello > 0 === (theirs.hello !== undefined), 'other parts', () => [
      found,
      told,
    ]);
    return true;
  },
};

const subjects: FuzzTarget = {
  name: 'subject',
  about: 'the rules of subjects, against an expression',
  memoryBytes: 512 << 10,
  lengthMax: 300,
  dictionary: ['.', '..', '\u0000', '\u007f', 'é', '\ud83d\ude00'],
  seeds: () => [Buffer.from('a.b.c'), Buffer.from('é.ü'), Buffer.alloc(255, 0x61), Buffer.from([0xff, 0x2e])],
  run: (bytes) => {
    const fault = subjectFault(bytes, 0, bytes.length);
    if (fault !== null) return false;
    const text = bytes.toString('utf8');
    expect(Buffer.from(text).equals(bytes) && bytes.length <= 255, 'no UTF-8, or too long', () => text);
    expect(
      text.split('.').every((token) => token !== ''),
      'an empty token',
      () => text,
    );
    return true;
  },
};

export const STREAM_TARGETS: readonly FuzzTarget[] = [
  producerFrames,
  consumerFrames,
  delivery,
  frames,
  peers,
  subjects,
];
