/**
 * The question of a start to the log: up to which id it has given, subject by subject. What a database has beyond that is of a newer log, and the
 * node halts: it would give ids again that have messages (design section 9). A run of u32 hash · u32 length · subject.
 */
import type { AllotMachine } from '../allot/allot-machine.ts';
import { subjectHash } from '../base/subject.ts';

const HEADER = 8;

export function packSubjects(subjects: readonly Uint8Array[]): Buffer {
  let size = 0;
  for (const { length } of subjects) size += HEADER + length;
  const packed = Buffer.alloc(size);
  let at = 0;
  for (const subject of subjects) {
    packed.writeUInt32LE(subjectHash(subject, 0, subject.length), at);
    packed.writeUInt32LE(subject.length, at + 4);
    packed.set(subject, at + HEADER);
    at += HEADER + subject.length;
  }
  return packed;
}

/** In the order of the subjects; 0 if the log does not know one. */
export function headsOf(machine: AllotMachine, packed: Uint8Array): number[] {
  const view = new DataView(packed.buffer, packed.byteOffset, packed.length);
  const heads: number[] = [];
  for (let at = 0; at < packed.length; ) {
    const start = at + HEADER;
    const end = start + view.getUint32(at + 4, true);
    const subject = machine.find(packed, start, end, view.getUint32(at, true));
    heads.push(subject < 0 ? 0 : machine.head(subject));
    at = end;
  }
  return heads;
}
