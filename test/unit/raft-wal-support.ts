/** Shared by the tests of the Raft log. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { NodeDisk } from '../../src/storage/disk.ts';
import { parseSegmentName } from '../../src/storage/raft-wal/format.ts';
import { RaftWal } from '../../src/storage/raft-wal/raft-wal.ts';
import type { WalEntry, WalOptions } from '../../src/storage/raft-wal/types.ts';

export const SMALL: WalOptions = { reserveBytes: 0, preallocateBytes: 8192 };

export function openWal(dir: string, options: WalOptions = {}): ReturnType<typeof RaftWal.open> {
  return RaftWal.open(new NodeDisk(), dir, { ...SMALL, ...options });
}

export function entry(index: number, bytes: number | string = 24, term = 1): WalEntry {
  const data = typeof bytes === 'string' ? Buffer.from(bytes) : filled(index, bytes);
  return { term, index, type: 0, data };
}

function filled(seed: number, bytes: number): Uint8Array {
  const data = new Uint8Array(bytes);
  // Never zero, so that no sector of it looks torn.
  for (let i = 0; i < bytes; i++) data[i] = 1 + ((seed * 31 + i * 7) % 255);
  return data;
}

export function plain(entries: readonly WalEntry[]): string[] {
  return entries.map(
    ({ term, index, type, data }) => `${index}@${term}/${type}:${Buffer.from(data).toString('latin1')}`,
  );
}

export function segmentNames(names: readonly string[]): string[] {
  return names.filter((name) => parseSegmentName(name) !== null).sort();
}

export function newestSegment(dir: string): string {
  return join(dir, segmentNames(new NodeDisk().list(dir)).at(-1) as string);
}

export function patch(path: string, change: (bytes: Buffer) => Buffer | undefined): void {
  const bytes = readFileSync(path);
  writeFileSync(path, change(bytes) ?? bytes);
}

/** What opening says: the recovered payload texts, or the name and code of the refusal. */
export function outcome(dir: string, options: WalOptions = {}): string[] | string {
  try {
    const { wal, state } = openWal(dir, options);
    wal.close();
    return plain(state.entries);
  } catch (error) {
    const { name, code } = error as { name: string; code?: string };
    return `${name} ${code}`;
  }
}

export const DAMAGED = 'WalDamaged RAFT_LOG_DAMAGED';
