import { slotOfHash } from '../../base/subject.ts';
import type { Seat } from './subject-group.ts';

/**
 * Subscriptions that ended while their slot was held. The move may be given up, and then the shard that kept the slot still has them: it hears of it when the
 * slot is released. A shard that does not know them takes no notice.
 */
export class GoneSeats {
  readonly #unsubscribe: (seat: Seat) => void;
  #seats: Seat[] = [];

  constructor(unsubscribe: (seat: Seat) => void) {
    this.#unsubscribe = unsubscribe;
  }

  add(seat: Seat): void {
    this.#seats.push(seat);
  }

  holdSlots(): void {
    // They come one by one, as they end.
  }

  resumeSlots(slots: ReadonlySet<number>, ownerOf: (slot: number) => number): void {
    const seats = this.#seats;
    this.#seats = [];
    for (const seat of seats) {
      const slot = slotOfHash(seat.group.hash);
      if (slots.has(slot)) this.#unsubscribe({ id: seat.id, group: { ...groupOf(seat), shard: ownerOf(slot) } });
      else this.#seats.push(seat);
    }
  }
}

function groupOf({ group: { id, subject, hash, encoding } }: Seat): Omit<Seat['group'], 'shard'> {
  return { id, subject, hash, encoding };
}
