/** When the waiting messages of a shard become a group. All sizes in bytes, times in ms. */
export interface SealLimits {
  /** Groups that may be on their way to the store at a time (groups.in_flight). */
  readonly groupsInFlight: number;
  /** Longest wait for more messages while another group is on its way (batch.linger). */
  readonly lingerMs: number;
  /** A group this large does not wait (a quarter of batch.bytes). */
  readonly fullBytes: number;
}

export interface SealState {
  readonly groupsInFlight: number;
  readonly waitingBytes: number;
  readonly waitingMessages: number;
  /** Age of the oldest waiting message. */
  readonly oldestMs: number;
  /** The thread that feeds this one has no idle time left. */
  readonly isSourceBusy: boolean;
}

/**
 * With nothing on its way a group leaves at once: a lone message must not wait for company. With one on its way, another leaves when it is
 * large or old enough; otherwise what arrives during the write in progress forms the next group, so that batches grow with load.
 *
 * With a fast disk that is not enough: groups stay small, and the system calls of many small writes take the processor from the thread that
 * the throughput depends on. So when that thread is busy, every group lingers; callers wait for it longer than for the linger anyway.
 */
export function shouldSeal(state: SealState, limits: SealLimits): boolean {
  if (state.waitingMessages === 0) return false;
  if (state.groupsInFlight === 0 && !state.isSourceBusy) return true;
  if (state.groupsInFlight >= limits.groupsInFlight) return false;
  return state.waitingBytes >= limits.fullBytes || state.oldestMs >= limits.lingerMs;
}
