/**
 * Which process a database belongs to. A data directory is locked where it lies, but a copy of it (a cloned volume) has a lock of its own: two
 * brokers would give the same ids. So every start writes a random word of its own over that of the start before it, and goes on only while it
 * reads it back.
 */
import { randomUUID } from 'node:crypto';

/** One row for each node id. */
export interface IncarnationRegistry {
  /** From its answer on `find` says so. Rejects with BrokerError STORE_UNAVAILABLE; asking again is harmless. */
  claim(node: string, incarnation: string): Promise<void>;
  /** The start that claimed last; null if none did. Rejects with BrokerError STORE_UNAVAILABLE. */
  find(node: string): Promise<string | null>;
  /** Every node that ever claimed. Rejects with BrokerError STORE_UNAVAILABLE. */
  nodes(): Promise<readonly string[]>;
}

export class Fence {
  readonly incarnation: string = randomUUID();
  readonly #registry: IncarnationRegistry;
  readonly #node: string;

  constructor(registry: IncarnationRegistry, node: string) {
    this.#registry = registry;
    this.#node = node;
  }

  /** Takes over from whoever has it. */
  async claim(): Promise<void> {
    await this.#registry.claim(this.#node, this.incarnation);
  }

  /** Null while this process has it; else who has, in words. */
  async lostTo(): Promise<string | null> {
    const found = await this.#registry.find(this.#node);
    if (found === this.incarnation) return null;
    return found === null ? 'nobody: its row is gone' : `incarnation ${found}`;
  }
}
