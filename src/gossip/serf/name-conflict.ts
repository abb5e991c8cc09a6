import type { Address } from '../types.ts';
import { isSameAddress } from './addresses.ts';
import type { SerfMessage } from './messages.ts';

/**
 * The vote on this node's name, which another claims too: every other node says which address it knows for it, and the majority of those that answer
 * decides (hashicorp/serf serf/serf.go resolveNodeConflict). As upstream, nobody answering is no majority.
 */
export class NameVote {
  readonly #own: Address;
  #responses = 0;
  #matching = 0;

  constructor(own: Address) {
    this.#own = own;
  }

  get responses(): number {
    return this.#responses;
  }

  get matching(): number {
    return this.#matching;
  }

  get isLost(): boolean {
    return this.#matching < Math.floor(this.#responses / 2) + 1;
  }

  /** What is no answer to this question does not count. */
  count(answer: SerfMessage | null): void {
    if (answer?.kind !== 'conflictResponse') return;
    this.#responses++;
    const address = answer.member?.address;
    if (address !== undefined && isSameAddress(address, this.#own)) this.#matching++;
  }
}
