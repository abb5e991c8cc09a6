/**
 * A backup is a folder:
 *
 *   manifest.json   written last: without it the backup is not whole
 *   state           chunks of a snapshot of the state machine (src/allot/snapshot-format.ts), one behind the other
 *   segments/       the embedded log's lanes, file by file; with a database there are none, its own tools copy the messages
 */
import { join } from 'node:path';
import { z } from 'zod';
import { crc32 } from '../base/checksum.ts';
import type { StoreKind } from '../config/schema.ts';
import type { Disk } from '../storage/disk.ts';
import { replaceFile } from '../storage/small-file.ts';
import { Refusal } from './refusal.ts';

const MANIFEST_NAME = 'manifest.json';
export const STATE_NAME = 'state';
export const SEGMENTS_NAME = 'segments';

const FORMAT = 'broker-backup';
const VERSION = 1;
/** A line for each file: a million segments would be too many anyway. */
const MANIFEST_BYTES_MAX = 256 * 1024 * 1024;
/** Of a file that is read or copied at a time. */
const PIECE_BYTES = 1 << 20;

export interface BackupFile {
  /** Relative to the folder, with `/`; only names that a backup makes. */
  readonly path: string;
  readonly bytes: number;
  /** CRC-32, as `src/base/checksum.ts` has it. */
  readonly crc32: number;
}

export interface Manifest {
  readonly format: string;
  readonly version: number;
  /** ISO 8601. */
  readonly createdAt: string;
  readonly clusterId: string;
  readonly clusterName: string;
  readonly nodeId: string;
  readonly store: StoreKind;
  readonly logIndex: number;
  /** Epoch ms. */
  readonly logTime: number;
  readonly subjects: number;
  readonly producers: number;
  readonly files: readonly BackupFile[];
}

/** What a restore takes from it: the checksum says that it is whole, and not who wrote it. */
const FORM = z.object({
  createdAt: z.string(),
  clusterId: z.string(),
  clusterName: z.string(),
  nodeId: z.string(),
  store: z.string(),
  logIndex: z.int().min(0),
  logTime: z.number(),
  subjects: z.int().min(0),
  producers: z.int().min(0),
  files: z.array(z.object({ path: z.string(), bytes: z.int().min(0), crc32: z.int().min(0) })),
});

const PATH = /^(state|segments\/[\w.-]+(\/[\w.-]+)*)$/;

/** The last step of a backup. `check` is the CRC-32 of the rest, as it stands. */
export function writeManifest(disk: Disk, folder: string, manifest: Omit<Manifest, 'format' | 'version'>): void {
  const body = { format: FORMAT, version: VERSION, ...manifest };
  const whole = { ...body, check: checkOf(body) };
  replaceFile(disk, join(folder, MANIFEST_NAME), Buffer.from(`${JSON.stringify(whole, null, 1)}\n`));
}

/** Refusal, with the name of the file, if the folder has no whole backup that this program knows. The files are not looked at. */
export function readManifest(disk: Disk, folder: string): Manifest {
  const path = join(folder, MANIFEST_NAME);
  const size = disk.size(path);
  if (size < 0) {
    throw new Refusal(
      `${folder} has no ${MANIFEST_NAME}: it is no backup, or one that was cut off`,
      'name another backup',
    );
  }
  const damaged = (why: string): Refusal => new Refusal(`${path} is damaged: ${why}`, 'name another backup');
  if (size > MANIFEST_BYTES_MAX) throw damaged(`it has ${size} bytes`);
  const text = readWhole(disk, path, size).toString('utf8');
  let found: unknown;
  try {
    found = JSON.parse(text);
  } catch {
    throw damaged('it is not JSON');
  }
  const { check, ...body } = (found ?? {}) as Manifest & { readonly check?: unknown };
  if (body.format !== FORMAT || !Number.isSafeInteger(body.version)) throw damaged(`it is not a ${FORMAT}`);
  if (body.version !== VERSION) {
    throw new Refusal(`${path} is of version ${body.version}, this program knows ${VERSION}`, 'use the newer program');
  }
  if (check !== checkOf(body)) throw damaged('its checksum is wrong');
  if (!FORM.safeParse(body).success) throw damaged('something in it is not what a backup writes');
  const strange = body.files.find(
    (file) => !PATH.test(file.path) || file.path.split('/').some((name) => /^\.+$/.test(name)),
  );
  if (strange !== undefined) throw damaged(`it names ${JSON.stringify(strange.path)}`);
  return body;
}

function checkOf(body: object): string {
  return crc32(Buffer.from(JSON.stringify(body)))
    .toString(16)
    .padStart(8, '0');
}

function readWhole(disk: Disk, path: string, size: number): Buffer {
  const bytes = Buffer.alloc(size);
  const file = disk.open(path, 'read');
  try {
    const read = file.preadSync(bytes, 0, size, 0);
    return bytes.subarray(0, read);
  } finally {
    file.close();
  }
}

/** Size and checksum of a file, which is copied to `target` if that is given; then the copy is durable but for its name. `onBytes` may throw, to end it. */
export async function copyFile(
  disk: Disk,
  source: string,
  target: string | null,
  onBytes: (bytes: number) => void,
): Promise<{ readonly bytes: number; readonly crc32: number }> {
  const from = disk.open(source, 'read');
  try {
    const to = target === null ? null : disk.createOrEmpty(target, 'backup');
    try {
      const piece = Buffer.alloc(PIECE_BYTES);
      let bytes = 0;
      let crc = 0;
      for (;;) {
        const read = await from.pread(piece, 0, PIECE_BYTES, bytes);
        if (read === 0) break;
        const part = piece.subarray(0, read);
        await to?.writevFully([part], bytes);
        crc = crc32(part, crc);
        bytes += read;
        onBytes(read);
      }
      await to?.fdatasync();
      return { bytes, crc32: crc };
    } finally {
      to?.close();
    }
  } finally {
    from.close();
  }
}

/** Refusal if a file of the backup is not what was written. */
export function checkFile(
  folder: string,
  wanted: BackupFile,
  found: { readonly bytes: number; readonly crc32: number },
): void {
  if (found.bytes === wanted.bytes && found.crc32 === wanted.crc32) return;
  const why =
    found.bytes === wanted.bytes
      ? 'its checksum is not the one of the manifest'
      : `it has ${found.bytes} bytes, the manifest says ${wanted.bytes}`;
  throw new Refusal(`${join(folder, wanted.path)} is damaged: ${why}`, 'name another backup');
}
