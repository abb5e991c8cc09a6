/** A snapshot of the state machine as one file: its chunks, which say how long they are, one behind the other. */
import { AllotMachine } from '../allot/allot-machine.ts';
import type { AllotLimits } from '../allot/allot-state.ts';
import { CHUNK_HEADER } from '../allot/snapshot-format.ts';
import { crc32 } from '../base/checksum.ts';
import type { Disk } from '../storage/disk.ts';
import { Refusal } from './refusal.ts';

const CHUNK_BYTES = 1 << 20;
/** One subject with very many open allotments may make a chunk longer than it was asked for. */
const CHUNK_BYTES_MAX = 256 << 20;
/** Of the header: the bytes of the body. */
const BODY_LENGTH_AT = 12;

/** Durable but for its name. */
export function writeState(
  disk: Disk,
  path: string,
  machine: AllotMachine,
): { readonly bytes: number; readonly crc32: number } {
  const file = disk.createOrEmpty(path, 'backup');
  try {
    const writer = machine.beginSnapshot();
    let bytes = 0;
    let crc = 0;
    for (let chunk = writer.nextChunk(CHUNK_BYTES); chunk !== null; chunk = writer.nextChunk(CHUNK_BYTES)) {
      bytes += file.writevFullySync([chunk], bytes);
      crc = crc32(chunk, crc);
    }
    file.fdatasyncSync();
    return { bytes, crc32: crc };
  } finally {
    file.close();
  }
}

/** The file must have its checksum right. */
export function readState(disk: Disk, path: string, limits: AllotLimits): AllotMachine {
  const file = disk.open(path, 'read');
  try {
    return AllotMachine.restore(chunksOf(file, path), limits);
  } finally {
    file.close();
  }
}

function* chunksOf(file: ReturnType<Disk['open']>, path: string): Generator<Uint8Array> {
  const header = Buffer.alloc(CHUNK_HEADER);
  const size = file.size();
  for (let at = 0; at < size; ) {
    const isWhole = file.preadSync(header, 0, CHUNK_HEADER, at) === CHUNK_HEADER;
    const length = CHUNK_HEADER + (isWhole ? header.readUInt32LE(BODY_LENGTH_AT) : 0);
    if (!isWhole || length > CHUNK_BYTES_MAX || at + length > size) throw new Refusal(`${path} is not a snapshot`);
    const chunk = Buffer.alloc(length);
    file.preadSync(chunk, 0, length, at);
    yield chunk;
    at += length;
  }
}
