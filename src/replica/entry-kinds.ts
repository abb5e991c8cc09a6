/** Kinds of log entries, as their envelopes carry them; append-only. */
export const ENTRY_KIND_ALLOT = 1;
/** A row of the table of members (member-table.ts). */
export const ENTRY_KIND_MEMBER = 2;
