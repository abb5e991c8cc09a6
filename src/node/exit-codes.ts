/** Exit codes of the server (docs/operations.md). */
export const EXIT = { ok: 0, startFailed: 1, died: 70, copied: 78 } as const;
