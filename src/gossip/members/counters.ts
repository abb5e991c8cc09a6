/** What the rules have done and refused, since they began. */
export interface MemberCounters {
  /** Messages with a name, address, versions, tags or incarnation out of bounds. */
  refused: number;
  /** New names beyond `membersMax`. */
  membersRefused: number;
  /** Alive messages that the delegate refused. */
  aliveRefused: number;
  conflicts: number;
  /** Times we had to say that we are alive, or who we are. */
  refutations: number;
  /** Suspicions that began here, own and heard. */
  suspicions: number;
  /** Suspicions that ran out here: members that we called failed ourselves. */
  failures: number;
  probes: number;
  probesFailed: number;
  /** Members that answered over a connection only. */
  probesStreamOnly: number;
  /** Indirect pings not made because too many were under way. */
  relaysRefused: number;
  /** Times that we did not run for longer than a probe interval. */
  pauses: number;
  joinsDone: number;
  joinsFailed: number;
  /** Exchanges of everything that failed or were refused, on either side. */
  pushPullsFailed: number;
  /** Members forgotten some time after they failed or left. */
  forgotten: number;
}

export function noCounts(): MemberCounters {
  return {
    refused: 0,
    membersRefused: 0,
    aliveRefused: 0,
    conflicts: 0,
    refutations: 0,
    suspicions: 0,
    failures: 0,
    probes: 0,
    probesFailed: 0,
    probesStreamOnly: 0,
    relaysRefused: 0,
    pauses: 0,
    joinsDone: 0,
    joinsFailed: 0,
    pushPullsFailed: 0,
    forgotten: 0,
  };
}
