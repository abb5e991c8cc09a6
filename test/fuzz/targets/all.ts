/** All that `npm run faults -- fuzz` knows. A new parser: one file here, and one line below. */
import type { FuzzTarget } from '../target.ts';
import { ACCESS_TARGETS } from './access.ts';
import { BATCH_TARGETS } from './batches.ts';
import { GOSSIP_TARGETS } from './gossip.ts';
import { HEADER_TARGETS } from './headers.ts';
import { RAFT_PORT_TARGETS } from './raft-port.ts';
import { SEGMENT_TARGETS } from './segments.ts';
import { SMALL_FILE_TARGETS } from './small-files.ts';
import { STATE_TARGETS } from './state.ts';
import { STREAM_TARGETS } from './streams.ts';
import { TEXT_TARGETS } from './texts.ts';
import { UNARY_TARGETS } from './unary.ts';
import { WAL_TARGETS } from './wal.ts';

export const TARGETS: readonly FuzzTarget[] = [
  ...UNARY_TARGETS,
  ...STREAM_TARGETS,
  ...BATCH_TARGETS,
  ...WAL_TARGETS,
  ...SEGMENT_TARGETS,
  ...STATE_TARGETS,
  ...RAFT_PORT_TARGETS,
  ...GOSSIP_TARGETS,
  ...HEADER_TARGETS,
  ...TEXT_TARGETS,
  ...SMALL_FILE_TARGETS,
  ...ACCESS_TARGETS,
];
