/**
 * All that an acceptor sends behind its answer: single bytes. ALIVE: all `aliveEveryMs`, on every connection. The others end the transfer of a snapshot: it is
 * installed, it is not and will not be, or none can be taken in at the moment. Append-only.
 */
export const Signal = { ALIVE: 0, INSTALLED: 1, FAILED: 2, BUSY: 3 } as const;
