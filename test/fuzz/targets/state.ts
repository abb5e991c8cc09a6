/** Snapshots of the state machine. */
import { crc32 } from 'node:zlib';
import { AllotMachine } from '../../../src/allot/allot-machine.ts';
import { CHUNK_HEADER, SNAPSHOT_MAGIC } from '../../../src/allot/snapshot-format.ts';
import { AssertionError } from '../../../src/base/assert.ts';
import { Refusal } from '../../../src/recovery/refusal.ts';
import { readState } from '../../../src/recovery/state-file.ts';
import { drain, LIMITS, Rig } from '../../unit/allot-rig.ts';
import { MemoryDisk } from '../../unit/embedded-memory-disk.ts';
import { accepts, choiceOf, expect, type FuzzTarget } from '../target.ts';

const BODY_LENGTH = 12;
const CHECKSUM = 16;

function seeds(): Buffer[] {
  const rig = Rig.started();
  const small = Buffer.concat(rig.snapshot());
  rig.run({ do: 'open', subject: 'a.b', count: 3 }, { do: 'stored', subject: 'a.b', base: 1 });
  rig.run({
    do: 'open',
    subject: 'orders',
    parts: [{ count: 2, producer: 'p', sequence: 4, checksum: 9 }, { count: 1 }],
    expiresMax: 60,
  });
  rig.run({ do: 'open', subject: 'a.b', count: 1, hasExpiry: true });
  rig.run({ do: 'stored', subject: 'orders', base: 1 }, { do: 'revoke', subject: 'a.b', base: 4 });
  return [small, Buffer.concat(rig.snapshot()), Buffer.concat(rig.snapshot(64))];
}

/** Numbers, lengths, most times, and checksums of the chunks. */
function repair(bytes: Buffer): Buffer {
  let number = 0;
  for (let at = 0; at + CHUNK_HEADER <= bytes.length; number++) {
    const room = bytes.length - at - CHUNK_HEADER;
    if (bytes.readUInt32LE(at + BODY_LENGTH) > room) {
      if (choiceOf(bytes.subarray(at), 8) === 0) return bytes;
      bytes.writeUInt32LE(room, at + BODY_LENGTH);
    }
    const end = at + CHUNK_HEADER + bytes.readUInt32LE(at + BODY_LENGTH);
    bytes.writeUInt32LE(SNAPSHOT_MAGIC, at);
    bytes.writeUInt16LE(choiceOf(bytes, 8) === 0 ? 1 : 2, at + 4);
    bytes.writeUInt32LE(number, at + 8);
    bytes.writeUInt32LE(0, at + CHECKSUM);
    bytes.writeUInt32LE(crc32(bytes.subarray(at, end)), at + CHECKSUM);
    at = end;
  }
  return bytes;
}

const PATH = '/state';

const state: FuzzTarget = {
  name: 'state-snapshot',
  about: 'a snapshot of the state machine, as a backup has it; what was restored is written and restored the same',
  memoryBytes: 4 << 20,
  lengthMax: 2_048,
  seeds,
  repair,
  run: (bytes) =>
    accepts(
      (error) => error instanceof AssertionError || error instanceof Refusal,
      () => {
        const disk = new MemoryDisk();
        disk.put(PATH, bytes);
        const machine = readState(disk, PATH, LIMITS);
        const written = drain(machine, 1 << 20);
        const again = Buffer.concat(drain(AllotMachine.restore(written, LIMITS), 1 << 20));
        expect(again.equals(Buffer.concat(written)), 'written otherwise the second time');
      },
    ),
};

export const STATE_TARGETS: readonly FuzzTarget[] = [state];
