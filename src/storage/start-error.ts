/**
 * Why a node refuses to start, or halts while it reads what it stored. A new code is appended here and in docs/operations.md.
 * `main` prints the message and ends with a non-zero code; nothing was changed on the disk unless the message says so.
 */
export type StartErrorCode =
  /** Another process holds the data directory. */
  | 'DATA_DIRECTORY_LOCKED'
  /** The directory has files in it and none of them says that it is a broker's. */
  | 'DATA_DIRECTORY_FOREIGN'
  /** Written by a layout version that this program does not know. */
  | 'DATA_DIRECTORY_VERSION'
  /** It belongs to another node or cluster than the configuration names. */
  | 'DATA_DIRECTORY_MISMATCH'
  /** It cannot be made, read or written, or its node.json is damaged. */
  | 'DATA_DIRECTORY_UNUSABLE'
  /** Another process has started on a copy of it since: also what ends a broker that serves. */
  | 'DATA_DIRECTORY_COPIED'
  /** `broker cluster recover` or `broker restore` was cut off in it. */
  | 'RECOVERY_UNFINISHED'
  /** The Raft log or a snapshot that is needed is damaged or incomplete. */
  | 'RAFT_LOG_DAMAGED'
  /** The Raft log was written by a newer program. */
  | 'RAFT_LOG_VERSION'
  /** The store has ids that the Raft log has not given: the log is an older copy. */
  | 'STORE_AHEAD_OF_LOG'
  /** The clock is more than 24 h ahead of the last log time. */
  | 'CLOCK_AHEAD'
  /** An address to listen on is taken or not allowed. */
  | 'PORT_UNAVAILABLE'
  /** A segment of messages was written by a newer program. */
  | 'SEGMENT_VERSION'
  /** A shard thread could not start. */
  | 'SHARD_FAILED'
  /** The settings of the database lose acknowledged messages, and `store.accept_weak_durability` is not set. */
  | 'STORE_WEAK'
  /** The database cannot be reached, is not writable, or its schema is not one that this program knows. */
  | 'STORE_UNUSABLE'
  /** The database is of a cluster that this node has no part in, and nothing says that it should join. */
  | 'CLUSTER_EXISTS'
  /** The cluster did not take the node in, or it has no way to ask. */
  | 'JOIN_REFUSED'
  /** The node was a member, and its data directory has no Raft log any more. */
  | 'RAFT_LOG_LOST'
  /** A node with peers has no address that they could reach it at. */
  | 'ADVERTISE_NEEDED'
  /** The access file cannot be read, or has problems. */
  | 'ACCESS_FILE_INVALID'
  /** Certificate, key or authorities of `tls.*` cannot be used. */
  | 'TLS_UNUSABLE'
  /** A port beyond loopback has no TLS and authentication, and `insecure` is not set. */
  | 'LISTENER_INSECURE';

export class StartError extends Error {
  override name = 'StartError';
  readonly code: StartErrorCode;

  constructor(code: StartErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}
