/** What a verification reads, by the kind of the store. */
import { SLOT_COUNT } from '../base/subject.ts';
import type { DatabaseStore } from '../storage/store.ts';
import { persist, Rows } from './database.ts';
import type { Pace } from './pace.ts';
import { Segments } from './segments.ts';
import type { Tally } from './tally.ts';
import type { VerifiedStore } from './verifier.ts';

/** Subjects of a database that are read at a time. */
const WALKS = 2;

/** The embedded store, from its files. `batchesAtOnce`: whose index is in memory together. */
export function embeddedStore(directory: string, tally: Tally, pace: Pace, batchesAtOnce?: number): VerifiedStore {
  const segments = new Segments(directory, tally, pace, batchesAtOnce);
  return {
    atOnce: 1,
    isBySlots: true,
    begin: async () => segments.scan(),
    ensure(slot) {
      segments.ensure(slot);
      return segments.slotsEnd;
    },
    walk: async (subject, first, settled, walk) => segments.walk(subject, first, settled, walk),
    newest: async (visit) => segments.newest(visit),
    beyond: async (subject, head) => segments.beyond(subject, head),
  };
}

/** A database, by connections of its own. */
export function databaseStore(store: Pick<DatabaseStore, 'read' | 'newest'>, tally: Tally, pace: Pace): VerifiedStore {
  const rows = new Rows(store, tally, pace);
  return {
    atOnce: WALKS,
    isBySlots: false,
    begin: async () => undefined,
    ensure: () => SLOT_COUNT,
    walk: (subject, first, settled, walk) => rows.walk(subject, first, settled, walk),
    newest: async (visit) => void (await persist(() => store.newest(visit))),
    beyond: (subject, head) => rows.beyond(subject, head),
  };
}
