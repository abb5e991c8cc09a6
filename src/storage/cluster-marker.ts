/**
 * What a data directory knows of the membership of its node before, and beside, its Raft log. A node without one has always run alone. It is
 * replaced as a whole, so that a crash leaves the old one or the new one.
 */
import { join } from 'node:path';
import { z } from 'zod';
import type { Member } from '../replica/types.ts';
import type { Disk } from './disk.ts';
import { readSmallFile, replaceFile } from './small-file.ts';
import { StartError } from './start-error.ts';

const MARKER = 'CLUSTER';
/** Members are a few, of some hundred bytes each. */
const MARKER_BYTES_MAX = 1 << 20;
const VERSION = 1;

export interface ClusterMarker {
  /**
   * `first`: it begins a cluster. `joining`: it may have asked to be taken in, and never begins one. `joined`: the leader has taken it in, and
   * `members` are those it was told of. `member`: its log has it all.
   */
  readonly state: 'first' | 'joining' | 'joined' | 'member';
  /** Of `joined` and `member`: as the node knows them, for `member` as of its last look. Of `joining`: what a member knew whose log was damaged. */
  readonly members: readonly Member[];
}

const FORMAT = z.object({
  version: z.literal(VERSION),
  state: z.enum(['first', 'joining', 'joined', 'member']),
  members: z.array(
    z.object({ node: z.string(), instance: z.string(), raft: z.string(), grpc: z.string(), protocol: z.int() }),
  ),
});

/** Null: the node has no peers, as far as the directory knows. StartError if it cannot be read. */
export function readClusterMarker(disk: Disk, root: string): ClusterMarker | null {
  const path = join(root, MARKER);
  const bytes = readSmallFile(disk, path, MARKER_BYTES_MAX);
  if (bytes === null) return null;
  const found = FORMAT.safeParse(parse(bytes.toString('utf8')));
  if (found.success) return { state: found.data.state, members: found.data.members };
  throw new StartError(
    'DATA_DIRECTORY_UNUSABLE',
    `${path} is damaged, or of a newer program: restore the data directory from a backup, or start on a new one with --join`,
  );
}

/** The change is there whole or not at all, and durable when the call returns. */
export function writeClusterMarker(disk: Disk, root: string, marker: ClusterMarker): void {
  const bytes = Buffer.from(`${JSON.stringify({ version: VERSION, ...marker }, null, 2)}\n`);
  replaceFile(disk, join(root, MARKER), bytes, 'cluster-file');
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    if (error instanceof SyntaxError) return null;
    throw error;
  }
}
