import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

/**
 * How much may be received between two collections, in bytes. V8 adds memory outside the heap to the old generation when it looks at that one's limit, which
 * after a marking may lie as little as 8 MB above what is alive. With 16 MiB in its place a broker was fast until its first marking, and half as fast for good.
 */
const COLLECT_BYTES = 4 << 20;

/**
 * Node reads each piece of a connection into memory outside V8's heap, which is free again as soon as a collection of the young generation finds its
 * owner dead. But nothing starts one: what is received costs hardly any memory of the heap itself. So V8 sees the memory outside grow, and marks the whole
 * heap for it, several times a second (docs/performance.md, `stream`). Here the young generation is collected after so many bytes, which takes
 * 1 to 2 ms.
 *
 * One for each thread that receives much. `--expose-gc` is the only door to a collection by kind; the function stays in here.
 */
export class ReceivedGarbage {
  readonly #collect: (options: { readonly type: 'minor' }) => void;
  #bytes = 0;

  constructor() {
    setFlagsFromString('--expose-gc');
    this.#collect = runInNewContext('gc');
    setFlagsFromString('--no-expose-gc');
  }

  /** So many bytes have come, and are used up. */
  note(bytes: number): void {
    this.#bytes += bytes;
    if (this.#bytes < COLLECT_BYTES) return;
    this.#bytes = 0;
    this.#collect({ type: 'minor' });
  }
}
