/**
 * Bugs to order, so that it can be shown that the simulator finds them (docs/reliability.md). Each is one wrong step at the place of the
 * guard that it takes away. Only tests plant one: nothing in src/ calls `plantBug` (test/unit/tidy-planted.test.ts), so no flag, variable,
 * file or message can. Unplanted, a place costs one load and one branch, and none is on the way of a single message.
 */
export type PlantedBug =
  /** A leader commits an entry of an older term because a majority has it. */
  | 'R1-commit-older-term'
  /** A new leader answers reads before an entry of its own term is committed. */
  | 'R2-read-before-own-commit'
  /** A vote is sent before it is on disk. */
  | 'R3-vote-before-persist'
  /** A follower acknowledges entries before they are on its disk. */
  | 'R4-ack-before-persist'
  /** A leader counts its own entries before they are on its disk. */
  | 'R4-count-unsynced'
  /** An append cuts the log at its first entry, also when that is there already. */
  | 'R5-truncate-matching'
  /** The end of a write vouches for entries that were replaced since it began. */
  | 'R6-stale-write-vouches'
  /** Entries are applied when they are committed, durable here or not. */
  | 'R7-apply-before-durable'
  /** A leader that hears of no majority goes on. */
  | 'R10-no-quorum-check'
  /** A leader answers reads without asking whether it still leads. */
  | 'R11-lease-read'
  /** A leader takes a change of the members before the last one is applied. */
  | 'R12-two-changes'
  /** A node campaigns although it knows a change of the members that it has not applied. */
  | 'R13-campaign-unapplied'
  /** A snapshot is acknowledged before it is installed. */
  | 'R19-ack-before-install'
  /** The acknowledgement of a snapshot names the end of the log, and with it entries that the leader may not have. */
  | 'R19-ack-log-end'
  /** Frames of a node that lost its disk count as those of the voter that it was. */
  | 'R23-any-instance'
  /** A run that comes a second time is applied a second time. */
  | 'R25-run-twice'
  /** A snapshot forgets how many runs of a node were applied. */
  | 'R26-run-number-lost'
  /** A publish whose store did not answer in time is refused as if it never happened, and goes on. */
  | 'R27-timeout-is-none'
  /** The log closes a batch as stored while its write is on its way. */
  | 'S11-close-before-write'
  /** The last write under a key wins. */
  | 'S12-upsert'
  /** An acknowledgement goes out when the close is asked for. */
  | 'S7-ack-before-close'
  /** An allotment is closed as void before its mark is in the store. */
  | 'S7-void-before-mark'
  /** A node that is accused says nothing. */
  | 'G1-no-refutation'
  /** A node refutes with its own next incarnation, also below what it is accused with. */
  | 'G1-refutes-too-low'
  /** A suspicion that nobody else shares ends as early as one that all confirm. */
  | 'G1-unconfirmed-at-once'
  /** Who does not answer datagrams is not tried over a connection. */
  | 'G1-no-stream-ping'
  /** Accusations that the last refutation has overtaken are ignored. */
  | 'G1-not-contradicted'
  /** An alive message needs no newer incarnation. */
  | 'G4-same-incarnation-revives'
  /** What is alive in an exchange of everything is taken for newer than it is. */
  | 'G4-push-pull-revives'
  /** After a pause silence counts as if we had listened. */
  | 'G5-late-tick-judges'
  /** What is revoked can be closed as stored. */
  | 'S7-close-revoked'
  /** What a leader revokes leaves open what its writer has behind it. */
  | 'S7-no-cascade'
  /** A revoked sequence is not forgotten. */
  | 'S7-sequence-outlives-revoke'
  /** A group is closed, and acknowledged, when the store has been given it. */
  | 'B2-ack-before-stored'
  /** Readers whose slots were held do not begin again when these are released. */
  | 'B4-reader-not-rejoined'
  /** A reader that is told that its subject was trimmed past it stays where it stood. */
  | 'B4-trim-unheeded'
  /** A refused batch comes again at once, and what stands behind it does not wait for it. */
  | 'B5-retry-reorders'
  /** A start takes records of the Raft log whose content fails its checksum. */
  | 'S5-log-unchecked'
  /** What is read of a segment is not checked. */
  | 'S5-batch-unchecked'
  /** A start does not ask where the log ended when it was closed. */
  | 'R24-end-unmarked'
  /** A sealed segment that was cut is taken for one that a power cut tore. */
  | 'S9-sealed-is-torn';

const state: { planted: PlantedBug | null } = { planted: null };

/** For tests only. null takes it away. One at a time. */
export function plantBug(bug: PlantedBug | null): void {
  state.planted = bug;
}

export function isPlanted(bug: PlantedBug): boolean {
  return state.planted !== null && state.planted === bug;
}
