/** How fast the rules go. Times in ms. The values of the three profiles are those of memberlist's config.go (DefaultLANConfig and so on). */
export interface Profile {
  /** Between two probes; also the unit of all suspicion times. Shorter: failures are found sooner, for more packets. */
  readonly probeIntervalMs: number;
  /** Wait for an ack to a direct ping, before others are asked to ping. Shorter than `probeIntervalMs`. */
  readonly probeTimeoutMs: number;
  /** How many are asked to ping when a direct ping had no answer. */
  readonly indirectChecks: number;
  /** The probe interval is stretched by 1 to this much while we are not well (Lifeguard, "local health multiplier"). */
  readonly awarenessMax: number;
  /** Suspicion lasts at least this times log10(members), at least 1, times `probeIntervalMs`. */
  readonly suspicionMultiplier: number;
  /** And at most this times the least, while others do not confirm it. */
  readonly suspicionMaxMultiplier: number;
  /** A message is sent this times ceil(log10(members + 1)) times. */
  readonly retransmitMultiplier: number;
  readonly gossipIntervalMs: number;
  /** To how many members each time. */
  readonly gossipNodes: number;
  /** A dead member is told of it so that it may refute, and is remembered at least, for this long. */
  readonly gossipToTheDeadMs: number;
  /** Between two exchanges of everything with a random member; 0: never. More members than 32 make it longer. */
  readonly pushPullIntervalMs: number;
  /** For one exchange over a connection. */
  readonly streamTimeoutMs: number;
  /** After this long the name of a failed member may come back with another address; 0: never (until it is forgotten). */
  readonly deadNodeReclaimMs: number;
  /** Whether a member that does not answer packets is also pinged over a connection. */
  readonly streamPings: boolean;
}

/** config.go DefaultLANConfig */
export function lanProfile(): Profile {
  return {
    probeIntervalMs: 1_000,
    probeTimeoutMs: 500,
    indirectChecks: 3,
    awarenessMax: 8,
    suspicionMultiplier: 4,
    suspicionMaxMultiplier: 6,
    retransmitMultiplier: 4,
    gossipIntervalMs: 200,
    gossipNodes: 3,
    gossipToTheDeadMs: 30_000,
    pushPullIntervalMs: 30_000,
    streamTimeoutMs: 10_000,
    deadNodeReclaimMs: 0,
    streamPings: true,
  };
}

/** config.go DefaultWANConfig */
export function wanProfile(): Profile {
  return {
    ...lanProfile(),
    probeIntervalMs: 5_000,
    probeTimeoutMs: 3_000,
    suspicionMultiplier: 6,
    gossipIntervalMs: 500,
    gossipNodes: 4,
    gossipToTheDeadMs: 60_000,
    pushPullIntervalMs: 60_000,
    streamTimeoutMs: 30_000,
  };
}

/** config.go DefaultLocalConfig */
export function localProfile(): Profile {
  return {
    ...lanProfile(),
    probeTimeoutMs: 200,
    indirectChecks: 1,
    suspicionMultiplier: 3,
    retransmitMultiplier: 2,
    gossipIntervalMs: 100,
    gossipToTheDeadMs: 15_000,
    pushPullIntervalMs: 15_000,
    streamTimeoutMs: 1_000,
  };
}
