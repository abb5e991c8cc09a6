/** What a node reads of its own disk when it starts: Raft log, snapshots, and what is in the entries. */
import { crc32 } from 'node:zlib';
import { EnvelopeCodec, EnvelopeError } from '../../../src/storage/raft-wal/envelope.ts';
import * as format from '../../../src/storage/raft-wal/format.ts';
import { RaftWal } from '../../../src/storage/raft-wal/raft-wal.ts';
import { RecordBuilder } from '../../../src/storage/raft-wal/record.ts';
import {
  SnapshotDamaged,
  SnapshotFileWriter,
  SnapshotReader,
  snapshotName,
} from '../../../src/storage/raft-wal/snapshot-file.ts';
import { WalDamaged } from '../../../src/storage/raft-wal/wal-error.ts';
import { StartError } from '../../../src/storage/start-error.ts';
import { MemoryDisk } from '../../unit/embedded-memory-disk.ts';
import { accepts, choiceOf, expect, type FuzzTarget } from '../target.ts';

const MIB = 1 << 20;
const DIR = '/raft';
const OPTIONS = { reserveBytes: 0, preallocateBytes: 0 };
const SEGMENT = `${DIR}/${format.segmentName(1, 1)}`;

const codec = new EnvelopeCodec();

function entryOf(index: number, bytes: number, term = 1) {
  return {
    term,
    index,
    type: 0,
    data: codec.encode({ kind: 1, time: 1_700_000_000_000, payload: Buffer.alloc(bytes, index) }),
  };
}

function emptyDisk(): MemoryDisk {
  const disk = new MemoryDisk();
  disk.mkdir(DIR);
  return disk;
}

/** The segment of a log that has appended, overwritten and voted. */
function writtenLog(): Buffer {
  const disk = emptyDisk();
  const { wal } = RaftWal.open(disk, DIR, OPTIONS);
  wal.append([entryOf(1, 20), entryOf(2, 40)], { term: 1, vote: 'a', commit: 1 });
  wal.append([entryOf(3, 600)], null);
  wal.append([], { term: 2, vote: 'node-b', commit: 2 });
  wal.append([entryOf(3, 8, 2), entryOf(4, 0, 2)], null);
  wal.sync();
  wal.close();
  return Buffer.from(disk.bytes(`${DIR}/${disk.list(DIR)[0]}`));
}

/** What a pointer in the log may point at: the state behind entry 2. */
const POINTED = { index: 2, term: 1, meta: Buffer.from('meta') };
const POINTED_PATH = `${DIR}/${snapshotName(POINTED.index, POINTED.term)}`;

function pointedFile(): { readonly bytes: Buffer; readonly crc: number } {
  const disk = emptyDisk();
  const writer = new SnapshotFileWriter(disk.createOrEmpty(POINTED_PATH), POINTED, 7);
  writer.write(Buffer.alloc(100, 3));
  writer.writeTrailer();
  return { bytes: Buffer.from(disk.bytes(POINTED_PATH)), crc: writer.crc };
}

const pointed = pointedFile();

/** A log in which a snapshot was made, or taken in place of all entries before. */
function logWithSnapshot(installed: boolean): Buffer {
  const builder = new RecordBuilder();
  const parts: Buffer[] = [];
  let previous = 0;
  let position = 0;
  const put = (): void => {
    previous = builder.seal({ epoch: 5, previous, position, synced: 0 });
    parts.push(Buffer.from(builder.bytes.subarray(0, builder.length)));
    position += builder.length;
  };
  builder.putSegment(1, 1, new Uint8Array(format.SEGMENT_INSTANCE_BYTES));
  put();
  builder.putAppend([entryOf(1, 9), entryOf(2, 9), entryOf(3, 9)], { term: 1, vote: 'a', commit: 2 });
  put();
  builder.putPointer({ index: 2, term: 1, bytes: pointed.bytes.length, crc: pointed.crc, installed });
  put();
  builder.putAppend([entryOf(3, 5, 2)], { term: 2, vote: '', commit: 3 });
  put();
  return Buffer.concat(parts);
}

/** Checksums, chain and places of all records, as far as their lengths lead. */
function repairLog(bytes: Buffer): Buffer {
  const log = bytes;
  let previous = log.length >= format.HEADER_BYTES ? log.readUInt32LE(format.PREVIOUS) : 0;
  const epoch = log.length >= format.HEADER_BYTES ? log.readUInt32LE(format.EPOCH) : 0;
  for (let at = 0; at + format.HEADER_BYTES <= log.length; ) {
    const room = log.length - at - format.HEADER_BYTES;
    let length = log.readUInt32LE(at + format.LENGTH);
    if (format.recordBytes(length) > log.length - at) {
      if (room < 8 || choiceOf(log.subarray(at), 4) === 0) return log;
      length = room - 8 - (room % 8);
    }
    const end = at + format.recordBytes(length);
    log.fill(format.PADDING, at + format.HEADER_BYTES + length, end);
    log.writeUInt32LE(crc32(log.subarray(at + format.HEADER_BYTES, end), previous), at + format.BODY_CRC);
    log.writeUInt32LE(length, at + format.LENGTH);
    log.writeUInt16LE(format.RECORD_MAGIC, at + format.MAGIC);
    log.writeUInt8(format.FORMAT_VERSION, at + format.VERSION);
    log.writeUInt32LE(epoch, at + format.EPOCH);
    log.writeUInt32LE(previous, at + format.PREVIOUS);
    log.writeUInt32LE(at, at + format.POSITION);
    previous = crc32(log.subarray(at + format.BODY_CRC, at + format.HEADER_BYTES));
    log.writeUInt32LE(previous, at + format.HEADER_CRC);
    at = end;
  }
  return log;
}

interface Opened {
  readonly text: string;
  readonly cut: boolean;
}

function openLog(disk: MemoryDisk): Opened {
  const { wal, state, report } = RaftWal.open(disk, DIR, OPTIONS);
  wal.close();
  const { entries, hardState, snapshot } = state;
  for (const [i, entry] of entries.entries()) {
    expect(entry.index === (entries[0]?.index ?? 0) + i && entry.index <= format.INDEX_MAX, 'entries with a gap');
  }
  expect(hardState.commit <= Math.max(entries.at(-1)?.index ?? 0, snapshot?.index ?? 0), 'a commit beyond the log');
  const text = JSON.stringify([
    hardState,
    entries.map(({ term, index, type, data }) => [term, index, type, crc32(data)]),
  ]);
  return { text, cut: report.cut !== null };
}

function isStartRefusal(error: unknown): boolean {
  return error instanceof WalDamaged || error instanceof StartError;
}

const wal: FuzzTarget = {
  name: 'raft-wal',
  shortRuns: 500,
  about:
    'recovery of a Raft log of one segment, with a snapshot beside it; what was recovered is recovered again, the same',
  // A window of 1 MiB for each of the two openings, and a disk in memory.
  memoryBytes: 8 * MIB,
  lengthMax: 3_000,
  seeds: () => {
    const log = writtenLog();
    return [
      logWithSnapshot(false),
      logWithSnapshot(true),
      log,
      log.subarray(0, 200),
      Buffer.concat([log, Buffer.alloc(600)]),
    ];
  },
  repair: repairLog,
  run: (bytes) => {
    const disk = emptyDisk();
    disk.put(SEGMENT, bytes);
    disk.put(POINTED_PATH, pointed.bytes);
    return accepts(isStartRefusal, () => {
      const first = openLog(disk);
      const second = openLog(disk);
      expect(second.text === first.text, 'another state at the second start', () => [first.text, second.text]);
      expect(!second.cut, 'a tail is torn again');
    });
  },
};

const SNAPSHOT = `${DIR}/snap.tmp`;

function writtenSnapshot(meta: Uint8Array, ...chunks: readonly Uint8Array[]): Buffer {
  const disk = emptyDisk();
  const writer = new SnapshotFileWriter(disk.createOrEmpty(SNAPSHOT), { index: 9, term: 2, meta }, 7);
  for (const chunk of chunks) writer.write(chunk);
  writer.writeTrailer();
  return Buffer.from(disk.bytes(SNAPSHOT));
}

const SNAPSHOT_HEADER_BYTES = 40;

function repairSnapshot(bytes: Buffer): Buffer {
  if (bytes.length < SNAPSHOT_HEADER_BYTES) return bytes;
  const metaEnd = SNAPSHOT_HEADER_BYTES + bytes.readUInt32LE(12);
  if (metaEnd > bytes.length) return bytes;
  let crc = crc32(bytes.subarray(SNAPSHOT_HEADER_BYTES, metaEnd), crc32(bytes.subarray(0, 36)));
  bytes.writeUInt32LE(crc, 36);
  let at = metaEnd;
  let content = 0;
  for (let number = 0; at + 12 <= bytes.length; number++) {
    const length = bytes.readUInt32LE(at);
    bytes.writeUInt32LE(number, at + 4);
    if (length === 0) {
      if (at + 20 > bytes.length) return bytes;
      bytes.writeBigUInt64LE(BigInt(content), at + 8);
      bytes.writeUInt32LE(crc32(bytes.subarray(at, at + 16), crc), at + 16);
      return bytes.subarray(0, at + 20);
    }
    if (at + 12 + length > bytes.length) return bytes;
    crc = crc32(bytes.subarray(at + 12, at + 12 + length), crc32(bytes.subarray(at, at + 8), crc));
    bytes.writeUInt32LE(crc, at + 8);
    at += 12 + length;
    content += length;
  }
  return bytes;
}

const snapshot: FuzzTarget = {
  name: 'snapshot-file',
  about: 'a snapshot file, chunk by chunk; what was read is written the same',
  memoryBytes: MIB,
  seeds: () => [
    writtenSnapshot(Buffer.from('meta'), Buffer.from('one'), Buffer.alloc(300, 2)),
    writtenSnapshot(Buffer.alloc(0)),
    writtenSnapshot(Buffer.alloc(50, 1), Buffer.alloc(1_000, 5), Buffer.from('x'), Buffer.from('y')),
  ],
  repair: repairSnapshot,
  run: (bytes) => {
    const disk = emptyDisk();
    disk.put(SNAPSHOT, bytes);
    return accepts(
      (error) => error instanceof SnapshotDamaged,
      () => {
        const reader = new SnapshotReader(disk, SNAPSHOT);
        const chunks = [...reader.chunks()].map((chunk) => Buffer.from(chunk));
        const { meta, index, term } = reader.head;
        const target = disk.createOrEmpty(`${DIR}/again`);
        const writer = new SnapshotFileWriter(target, { index, term, meta }, bytes.readUInt32LE(32));
        for (const chunk of readAgain(disk)) writer.write(chunk);
        writer.writeTrailer();
        expect(disk.bytes(`${DIR}/again`).equals(bytes), 'written otherwise', () => [bytes.length, chunks.length]);
      },
    );
  },
};

function* readAgain(disk: MemoryDisk): Generator<Uint8Array> {
  yield* new SnapshotReader(disk, SNAPSHOT).chunks();
}

const envelope: FuzzTarget = {
  name: 'log-envelope',
  about: 'the data of a log entry (msgpack); what was read is written and read the same',
  memoryBytes: MIB,
  dictionary: [
    'v',
    'kind',
    'time',
    'payload',
    Uint8Array.of(0xc4),
    Uint8Array.of(0xd4, 0x72),
    Uint8Array.of(0xde, 0, 4),
  ],
  seeds: () => [
    codec.encode({ kind: 1, time: 1_700_000_000_000, payload: Buffer.from('payload') }),
    codec.encode({ kind: 0xffff, time: 0.5, payload: Buffer.alloc(0) }),
    Buffer.from('84a176cd0200a46b696e6401a474696d65cb0000000000000000a77061796c6f6164c400', 'hex'),
  ],
  run: (bytes) =>
    accepts(
      (error) => error instanceof EnvelopeError,
      () => {
        const { kind, time, payload } = codec.decode(bytes);
        const again = codec.decode(codec.encode({ kind, time, payload }));
        const isSame = again.kind === kind && again.time === time && Buffer.compare(again.payload, payload) === 0;
        expect(isSame, 'read otherwise the second time', () => [kind, time]);
      },
    ),
};

export const WAL_TARGETS: readonly FuzzTarget[] = [wal, snapshot, envelope];
