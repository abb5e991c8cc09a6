import { PartVerdict } from '../../allot/verdicts.ts';
import { OPENED_PARTS_HEADER, PART_BYTES } from '../link.ts';
import type { PartAnswers } from './group.ts';

/** Reads FromRaft.OPENED_PARTS in place. */
export class RingPartAnswers implements PartAnswers {
  readonly #view: DataView;
  #offset = 0;

  constructor(view: DataView) {
    this.#view = view;
  }

  wrap(offset: number): void {
    this.#offset = offset;
  }

  get count(): number {
    return this.#view.getUint32(this.#offset + 20, true);
  }

  isNew(i: number): boolean {
    return this.#verdict(i) === PartVerdict.ALLOTTED;
  }

  isStored(i: number): boolean {
    return this.#verdict(i) === PartVerdict.STORED;
  }

  firstId(i: number): number {
    return this.#view.getFloat64(this.#part(i), true);
  }

  refusal(i: number): number {
    return this.#verdict(i) === PartVerdict.REFUSED ? this.#view.getUint32(this.#part(i) + 12, true) : -1;
  }

  #verdict(i: number): number {
    return this.#view.getUint32(this.#part(i) + 8, true);
  }

  #part(i: number): number {
    return this.#offset + OPENED_PARTS_HEADER + i * PART_BYTES;
  }
}
