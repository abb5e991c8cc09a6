/**
 * The file RECOVERY of a data directory: it is there from the first change that `broker cluster recover` or `broker restore` makes until the last one is durable. No broker
 * starts in such a directory, and the next run goes on under the identity that is written here.
 */
import { join } from 'node:path';
import { z } from 'zod';
import type { NodeIdentity } from './data-directory.ts';
import type { Disk } from './disk.ts';
import { readSmallFile, replaceFile } from './small-file.ts';
import { StartError } from './start-error.ts';

const NAME = 'RECOVERY';
const VERSION = 1;
const BYTES_MAX = 64 * 1024;

/** Names that only such a run leaves; the temporary one without the other is of a run that had changed nothing. */
export const RECOVERY_NAMES: ReadonlySet<string> = new Set([NAME, `${NAME}.tmp`]);

export interface RecoveryMarker {
  readonly version: number;
  readonly kind: 'recover' | 'restore';
  /** Who the directory will belong to. */
  readonly node: NodeIdentity;
  /** Cluster id that the store had before; null if nobody knows (segments without a node.json). */
  readonly replaces: string | null;
  /** Where the Raft state that was there is put aside, a name in the directory, and the instance that wrote it; null: there was none. */
  readonly discarded: { readonly name: string; readonly instanceId: string } | null;
}

const FORMAT = z.object({
  version: z.literal(VERSION),
  kind: z.enum(['recover', 'restore']),
  node: z.object({
    version: z.int(),
    clusterId: z.string(),
    clusterName: z.string(),
    nodeId: z.string(),
    instanceId: z.string(),
    createdAt: z.string(),
  }),
  replaces: z.string().nullable(),
  discarded: z.object({ name: z.string(), instanceId: z.string() }).nullable(),
});

export function writeMarker(disk: Disk, root: string, marker: Omit<RecoveryMarker, 'version'>): RecoveryMarker {
  const whole = { version: VERSION, ...marker };
  replaceFile(disk, join(root, NAME), Buffer.from(`${JSON.stringify(whole, null, 2)}\n`));
  return whole;
}

export function removeMarker(disk: Disk, root: string): void {
  disk.unlink(join(root, NAME));
}

/** Null if there is none. StartError if it cannot be understood. */
export function readMarker(disk: Disk, root: string): RecoveryMarker | null {
  const path = join(root, NAME);
  const bytes = readSmallFile(disk, path, BYTES_MAX);
  if (bytes === null) return null;
  const marker = parse(bytes.toString('utf8'));
  if (marker !== null) return marker;
  throw new StartError(
    'DATA_DIRECTORY_UNUSABLE',
    `${path} is damaged, or of a newer program: recover into an empty data directory instead`,
  );
}

function parse(text: string): RecoveryMarker | null {
  try {
    return FORMAT.safeParse(JSON.parse(text)).data ?? null;
  } catch (error) {
    if (error instanceof SyntaxError) return null;
    throw error;
  }
}

/** StartError RECOVERY_UNFINISHED if such a run was cut off in the directory. */
export function checkNoRecovery(root: string, names: readonly string[]): void {
  if (!names.includes(NAME)) return;
  throw new StartError(
    'RECOVERY_UNFINISHED',
    `\`broker cluster recover\` or \`broker restore\` was cut off in ${root}: run the same command again, it goes on (nothing was changed)`,
  );
}
