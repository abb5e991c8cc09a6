import type { ConfigState, Entry, HardState, Index, Snapshot, Term } from './messages.ts';

/** Answer of `term()` for a position that is compacted away or not there yet. */
export const NO_TERM = -1;

/**
 * What the core reads of the log that was persisted. It answers at once: the tail a leader still sends from must be in
 * memory. Writing is not part of the port: the caller writes what a Ready hands it, then reports it.
 */
export interface RaftStorage {
  /** As persisted, and the members as of the `applied` index the core is started with. Read once, at start. */
  initialState(): { readonly hardState: HardState; readonly config: ConfigState };
  /**
   * Entries [lo, hi) in order, cut after `bytesMax` (entryBytes), but at least one. null when `lo` is compacted away.
   * `hi` is at most lastIndex() + 1.
   */
  entries(lo: Index, hi: Index, bytesMax: number): readonly Entry[] | null;
  /** Term at a position from firstIndex() - 1 to lastIndex(), NO_TERM elsewhere. */
  term(index: Index): Term;
  /** Position after the snapshot: the first one whose entry may still be there. */
  firstIndex(): Index;
  /** Position of the last entry; firstIndex() - 1 when there is none. */
  lastIndex(): Index;
  /** The newest snapshot, or null while none can be had (one is being made). */
  snapshot(): Snapshot | null;
}
