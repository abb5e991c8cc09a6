/** One damage to one file, as a disk makes it: seeded, and told in words. */
import { existsSync, readdirSync, readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import type { Prng } from '../../src/base/prng.ts';

const DAMAGE_KINDS = [
  'bit flip',
  'truncation',
  'zeros 512',
  'zeros 4096',
  'stale 512',
  'stale 4096',
  'foreign 512',
  'foreign 4096',
] as const;
type DamageKind = (typeof DAMAGE_KINDS)[number];

/** What kinds of files a data directory has. */
export type FileKind = 'log' | 'log end' | 'snapshot' | 'segment' | 'sidecar' | 'identity' | 'marker';

/** Null: nothing that is ever read. The lock is empty, and the reserve of the log is zeros that keep room. */
export function fileKindOf(path: string): FileKind | null {
  const name = path.split('/').at(-1) ?? '';
  if (path.includes('damaged') || path.includes('quarantine')) return null;
  if (/^wal-.*\.log$/.test(name)) return 'log';
  if (/^snap-.*\.snap$/.test(name)) return 'snapshot';
  if (name.endsWith('.seg')) return 'segment';
  if (name.endsWith('.idx')) return 'sidecar';
  if (name === 'end') return 'log end';
  if (name === 'node.json') return 'identity';
  return name === 'CLUSTER' || name === 'STORE' ? 'marker' : null;
}

/** Files below a folder that can be damaged, by their path from there. */
export function damageable(root: string): { readonly path: string; readonly kind: FileKind }[] {
  const files = readdirSync(root, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  const paths = files.map((entry) => relative(root, join(entry.parentPath, entry.name))).sort();
  return paths.flatMap((path) => {
    const kind = fileKindOf(path);
    return kind === null || statSync(join(root, path)).size === 0 ? [] : [{ path, kind }];
  });
}

export interface Damage {
  readonly path: string;
  readonly file: FileKind;
  readonly kind: DamageKind;
  /** Bytes of the file that are not as they were, from the first to behind the last; to its old end where it was cut. */
  readonly from: number;
  readonly to: number;
}

export interface DamageChoice {
  /** Damaged in place. */
  readonly root: string;
  /** The same directory at an earlier time, for chunks that come back. */
  readonly older: string;
  /** Only these kinds of files. Default: all. */
  readonly files?: readonly FileKind[];
  /** Only this kind of damage. Default: any. */
  readonly kind?: DamageKind;
}

const TRIES = 200;

/** Damages one file, and says how; the same way for the same numbers of `prng`. Null: there is nothing that this could change. */
export function damageOne(prng: Prng, { root, older, files, kind: only }: DamageChoice): Damage | null {
  const all = damageable(root).filter(({ kind }) => files === undefined || files.includes(kind));
  const kinds = [...new Set(all.map(({ kind }) => kind))];
  for (let attempt = 0; attempt < TRIES && kinds.length > 0; attempt++) {
    // A kind of file first: else nearly all were segments.
    const file = kinds[prng.nextBelow(kinds.length)] as FileKind;
    const ofKind = all.filter((one) => one.kind === file);
    const { path } = ofKind[prng.nextBelow(ofKind.length)] as { path: string };
    const kind = only ?? (DAMAGE_KINDS[prng.nextBelow(DAMAGE_KINDS.length)] as DamageKind);
    const before = readFileSync(join(root, path));
    const after = changed(prng, kind, before, { root, older, path, others: all.map((one) => one.path) });
    if (after === null || after.equals(before)) continue;
    if (after.length < before.length) truncateSync(join(root, path), after.length);
    // In place: the file stays the one that it was.
    else writeFileSync(join(root, path), after, { flag: 'r+' });
    return { path, file, kind, ...difference(before, after) };
  }
  return null;
}

interface Sources {
  readonly root: string;
  readonly older: string;
  readonly path: string;
  readonly others: readonly string[];
}

function changed(prng: Prng, kind: DamageKind, before: Buffer, sources: Sources): Buffer | null {
  const after = Buffer.from(before);
  // Where there is something: the rest of a log is zeros that were written ahead of it.
  const used = Math.max(1, usedBytes(before));
  if (kind === 'bit flip') {
    const at = prng.nextBelow(used);
    after[at] = (after[at] as number) ^ (1 << prng.nextBelow(8));
    return after;
  }
  if (kind === 'truncation') return after.subarray(0, prng.nextBelow(used));
  const bytes = Number(kind.split(' ')[1]);
  const at = Math.floor(prng.nextBelow(used) / bytes) * bytes;
  const chunk = chunkFor(prng, kind, at, bytes, sources);
  if (chunk === null) return null;
  chunk.copy(after, at, 0, Math.min(bytes, after.length - at));
  return after;
}

/** What comes to be at [at, at + bytes). */
function chunkFor(prng: Prng, kind: DamageKind, at: number, bytes: number, sources: Sources): Buffer | null {
  const { root, older, path, others } = sources;
  if (kind.startsWith('zeros')) return Buffer.alloc(bytes);
  if (kind.startsWith('stale')) {
    const old = join(older, path);
    if (!existsSync(old)) return null;
    const was = readFileSync(old);
    // The file has grown since.
    if (at >= was.length) return null;
    const chunk = Buffer.alloc(bytes);
    was.copy(chunk, 0, at, at + bytes);
    return chunk;
  }
  const other = readFileSync(join(root, others[prng.nextBelow(others.length)] as string));
  const from = Math.floor(prng.nextBelow(Math.max(1, other.length)) / 512) * 512;
  const chunk = Buffer.alloc(bytes);
  other.copy(chunk, 0, from, from + bytes);
  return chunk;
}

function usedBytes(bytes: Buffer): number {
  let end = bytes.length;
  while (end > 0 && bytes[end - 1] === 0) end -= 1;
  return end;
}

function difference(before: Buffer, after: Buffer): { from: number; to: number } {
  const common = Math.min(before.length, after.length);
  let from = 0;
  while (from < common && before[from] === after[from]) from += 1;
  if (after.length < before.length) return { from, to: before.length };
  let to = before.length;
  while (to > from && before[to - 1] === after[to - 1]) to -= 1;
  return { from, to };
}

export function inWords({ path, kind, from, to }: Damage): string {
  return `${kind} of ${path}, bytes ${from} to ${to}`;
}

/** Inode and size of every file, by path. */
export function listing(root: string): Map<number, { readonly path: string; readonly size: number }> {
  const files = readdirSync(root, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  return new Map(
    files.map((entry) => {
      const path = join(entry.parentPath, entry.name);
      const { ino, size } = statSync(path);
      return [ino, { path: relative(root, path), size }];
    }),
  );
}

/** Files of before that are nowhere in the folder any more, or shorter. Those in `mayGo` are written anew by every start. */
export function deleted(
  before: ReturnType<typeof listing>,
  after: ReturnType<typeof listing>,
  mayGo: (path: string) => boolean,
): string[] {
  return [...before].flatMap(([ino, { path, size }]) => {
    if (mayGo(path)) return [];
    const now = after.get(ino);
    if (now === undefined) return [`${path} is gone`];
    return now.size < size ? [`${path} has ${now.size} bytes of ${size}`] : [];
  });
}
