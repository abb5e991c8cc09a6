/** Kinds of log entries, as their envelopes carry them; append-only. */
export const ENTRY_KIND_ALLOT = 1;
