/**
 * Bounds of V8's heap in the Raft and the shard threads, for `new Worker` and Piscina. Left to itself V8 lets the young generation of each thread
 * grow with the memory of the machine (128 MiB each on 24 GiB), all of it touched, before it looks for garbage. What these threads make
 * is dead soon, so looking more often costs them under 1 us a call (docs/performance.md). The main thread keeps V8's default: of its
 * garbage much is still alive when looked at.
 */
export const THREAD_MEMORY = { maxYoungGenerationSizeMb: 12 } as const;
