/** Targets with a defect in each, which the fuzzer must find (test/faults/fuzz.test.ts). Their branches are marked as those of src/ are. */
import { crc32 } from 'node:zlib';
import { expect, type FuzzTarget } from './target.ts';

const SEEDS = [Buffer.from('0123456789abcdef'), Buffer.alloc(24, 1)];
const kept: Buffer[] = [];

function planted(name: string, run: (bytes: Buffer) => boolean, more: Partial<FuzzTarget> = {}): FuzzTarget {
  return { name, about: 'planted', memoryBytes: 1 << 20, seeds: () => SEEDS, run, ...more };
}

/** Four bytes in a row, each a branch of its own: without a guide one in 2^32. */
function isMagic(bytes: Buffer, at: number): boolean {
  if (bytes[at] !== 0xb1) return false;
  if (bytes[at + 1] !== 0x0c) return false;
  if (bytes[at + 2] !== 0xe2) return false;
  if (bytes[at + 3] !== 0x77) return false;
  return true;
}

function withChecksum(bytes: Buffer): Buffer {
  if (bytes.length >= 8) bytes.writeUInt32LE(crc32(bytes.subarray(4)), 0);
  return bytes;
}

const throws = planted('throws', (bytes) => {
  if (isMagic(bytes, 2)) throw new TypeError('planted');
  return true;
});

const endless = planted('endless', (bytes) => {
  // A length of 0 goes nowhere.
  for (let at = 1; at < bytes.length && bytes[0] === 0x5a; ) at += bytes[at] as number;
  return true;
});

const slow = planted('slow', (bytes) => {
  if (bytes[5] !== 0xff) return true;
  const until = process.threadCpuUsage().user + 110_000;
  while (process.threadCpuUsage().user < until) crc32(bytes);
  return true;
});

const allocates = planted('allocates', (bytes) => {
  // A length that is believed.
  if (bytes.length >= 4 && bytes.readUInt32BE(0) < 1 << 28) Buffer.alloc(bytes.readUInt32BE(0));
  return true;
});

const keeps = planted('keeps', (bytes) => {
  if (bytes[3] === 7) kept.push(Buffer.alloc(1 << 20, 1));
  return true;
});

const disagrees = planted(
  'disagrees',
  (bytes) => {
    if (bytes.length < 8) return false;
    const isRight = crc32(bytes.subarray(4)) === bytes.readUInt32LE(0);
    // A version for which somebody has forgotten the checksum.
    if (!isRight && bytes[4] !== 0x7f) return false;
    expect(isRight, 'a wrong checksum is accepted');
    return true;
  },
  { repair: withChecksum, seeds: () => SEEDS.map((seed) => withChecksum(Buffer.from(seed))) },
);

export const TARGETS: readonly FuzzTarget[] = [throws, endless, slow, allocates, keeps, disagrees];
