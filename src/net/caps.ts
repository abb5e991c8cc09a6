/** Limits of a PeerNetwork. Times in ms; none depends on the others unless it says so. */
export interface NetworkCaps {
  /** Bytes of a peer's frames that wait for its socket; while there are more, `send` takes none. */
  readonly unsentBytesMax: number;
  /** For a TCP connection to be made. */
  readonly connectMs: number;
  /** From a connection to its hello, and from a hello to its answer. */
  readonly helloMs: number;
  /** How often an acceptor tells a dialer that it is alive. */
  readonly aliveEveryMs: number;
  /** A dialer gives a connection up on which it heard nothing for so long: nobody acknowledges what it writes. At least 2 x `aliveEveryMs`. */
  readonly silenceMs: number;
  /** An acceptor gives a connection up on which no frame came for so long. Heartbeats of Raft come far more often; learners get them too. */
  readonly idleMs: number;
  /** First wait before a connection is tried again; it doubles with each failure, is drawn from [half, whole], and ends at `backoffMsMax`. */
  readonly backoffMsMin: number;
  readonly backoffMsMax: number;
  /** Accepted connections that have not said hello; one more, and the oldest of them is closed. */
  readonly unspokenMax: number;
  /** Bytes of one chunk of a snapshot; longer ones are cut. */
  readonly chunkBytesMax: number;
  /** A snapshot that moves no chunk for so long has failed. */
  readonly snapshotProgressMs: number;
  /** For the receiver to install what it has got. */
  readonly snapshotInstallMs: number;
}

export const DEFAULT_CAPS: NetworkCaps = Object.freeze({
  unsentBytesMax: 32 * 1024 * 1024,
  connectMs: 2_000,
  helloMs: 5_000,
  aliveEveryMs: 1_000,
  silenceMs: 3_000,
  idleMs: 30_000,
  backoffMsMin: 50,
  backoffMsMax: 2_000,
  unspokenMax: 64,
  chunkBytesMax: 256 * 1024,
  snapshotProgressMs: 30_000,
  snapshotInstallMs: 600_000,
});
