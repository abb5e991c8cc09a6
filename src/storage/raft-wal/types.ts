/** What the Raft thread hands in and gets back. The shapes are those of src/raft/messages.ts; storage does not import the core. */
export interface WalEntry {
  readonly term: number;
  /** 1 to 2^53-2. */
  readonly index: number;
  /** 0 to 255, kept as it is. */
  readonly type: number;
  readonly data: Uint8Array;
}

export interface WalHardState {
  readonly term: number;
  /** Up to 255 bytes of UTF-8; '' for nobody. */
  readonly vote: string;
  /** Never beyond the last entry: checked when written and when read (traps R7). */
  readonly commit: number;
}

export interface WalOptions {
  /** A new segment is begun when a record would end beyond this; a larger record gets a segment of its own. */
  readonly segmentBytes?: number;
  /** Step by which the file is filled with zeros ahead of the log; more means fewer, longer pauses. 0 turns it off. */
  readonly preallocateBytes?: number;
  /** Size of the reserve file; 0 for none. See reserve.ts. */
  readonly reserveBytes?: number;
  /** 128 random bits in hex (node.json): a log of another instance is refused. */
  readonly instanceId?: string;
}

export const SEGMENT_BYTES_DEFAULT = 64 * 1024 * 1024;
/** Measured: 1.6 times as many append+fdatasync a second as with a file that grows (no journal commit for its size); 1 MiB is no better. */
export const PREALLOCATE_BYTES_DEFAULT = 256 * 1024;
export const RESERVE_BYTES_DEFAULT = 32 * 1024 * 1024;

/** Recovered state, all of it durable. */
export interface WalState {
  readonly hardState: WalHardState;
  /** Entries behind the snapshot, without a gap. */
  readonly entries: WalEntry[];
  readonly snapshot: StoredSnapshot | null;
}

export interface SnapshotHead {
  readonly index: number;
  readonly term: number;
  /** Opaque here: the members at `index`, the time, whatever the Raft thread needs. At most 1 MiB. */
  readonly meta: Uint8Array;
}

export interface StoredSnapshot extends SnapshotHead {
  readonly path: string;
  /** Size of the file. */
  readonly bytes: number;
}

/** What recovery found, for the log and for tests. */
export interface WalReport {
  segments: number;
  records: number;
  /** Records of the log that came after the snapshot. */
  entries: number;
  bytes: number;
  /** A torn tail that was cut: nothing in it had been acknowledged. */
  cut: { readonly path: string; readonly position: number; readonly reason: string } | null;
  /** Snapshots that were passed over because they are damaged; each is in the quarantine now. */
  damagedSnapshots: string[];
  /** Moved to quarantine/, never deleted. */
  quarantined: string[];
  /** Left alone: temporary files, snapshots without a pointer, names that are not ours. */
  ignored: string[];
}

/** `done` once a snapshot is published; see RaftWal.beginSnapshot. */
export interface SnapshotWriter {
  readonly index: number;
  readonly term: number;
  /** Bytes of the file so far. */
  readonly bytesWritten: number;
  /** Appends 1 byte to 16 MiB. DiskFull: free space and write the same chunk again, or abort. */
  write(chunk: Uint8Array): void;
  /** Starts writing out what is in the page cache without stopping the thread, so that `finish` has little left to wait for. */
  flush(): Promise<void>;
  /**
   * Makes the snapshot durable, publishes it and drops the log that it replaces. `local`: made from the own state machine, the log goes
   * on. `installed`: received from the leader, all entries in the log are void. May be called again after DiskFull.
   */
  finish(origin: 'local' | 'installed'): Promise<StoredSnapshot>;
  abort(): void;
}
