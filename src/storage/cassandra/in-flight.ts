import { BrokerError } from '../../base/errors.ts';
import type { InFlight } from '../in-flight.ts';
import { StoreUncertain } from '../store.ts';

/**
 * The writes of one group. After one has failed, those that have not begun are left out: the group is repeated or given up as a whole, and each of
 * them might wait as long as the one before.
 */
export class GroupTries {
  readonly #inFlight: InFlight;
  readonly #writes: Promise<void>[] = [];
  readonly #failures: unknown[] = [];
  #begun = 0;

  constructor(inFlight: InFlight) {
    this.#inFlight = inFlight;
  }

  add(write: () => Promise<void>): void {
    this.#writes.push(this.#inFlight.run(() => this.#try(write)));
  }

  async #try(write: () => Promise<void>): Promise<void> {
    if (this.#failures.length > 0) return;
    this.#begun += 1;
    try {
      await write();
    } catch (error) {
      this.#failures.push(error);
    }
  }

  /** Resolves when all were done. Rejects with BrokerError if none took effect, else with StoreUncertain, when all that began have ended. */
  async outcome(): Promise<void> {
    await Promise.all(this.#writes);
    const [first] = this.#failures;
    if (first === undefined) return;
    const unclear = this.#failures.find((error) => !(error instanceof BrokerError));
    if (unclear !== undefined) throw unclear;
    if (this.#failures.length === this.#begun) throw first;
    throw new StoreUncertain('a part of the group was stored', { cause: first });
  }
}
