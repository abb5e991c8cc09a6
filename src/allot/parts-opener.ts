import { assert } from '../base/assert.ts';
import { readSafeUint } from '../base/bytes.ts';
import { REASON_CODE } from '../base/errors.ts';
import { subjectHash } from '../base/subject.ts';
import { type AllotState, rowOfSubject } from './allot-state.ts';
import { PART_HEADER, PART_PRODUCER_HEADER, PRODUCER_BYTES_MAX } from './commands.ts';
import type { Producer } from './producers.ts';
import { AllotVerdict, PartAnswers, PartVerdict } from './verdicts.ts';

/**
 * Decides the parts of one open (design section 3, promise 7, and section 7). Each part is decided in order and takes effect at once, so a
 * sequence that comes twice in one request meets itself. A part that is refused changes nothing.
 */
export class PartsOpener {
  readonly answers = new PartAnswers();
  /** Behind the last part of what `read` was given. */
  endOffset = 0;
  readonly #state: AllotState;
  #payload: Uint8Array = new Uint8Array(0);
  #view: DataView = new DataView(new ArrayBuffer(0));
  #starts = new Uint32Array(16);
  /** Base of the allotment to come, and the producers that will have ids in it. */
  #base = 0;
  readonly #newProducers: Producer[] = [];
  readonly #newSequences: number[] = [];
  readonly #newFirstIds: number[] = [];
  /** Filled places of the three: they are kept from open to open. */
  #newCount = 0;

  constructor(state: AllotState) {
    this.#state = state;
  }

  /** Finds the parts and checks that they are whole and add up to `countTotal`. */
  read(payload: Uint8Array, view: DataView, offset: number, partCount: number, countTotal: number): void {
    assert(partCount > 0, 'an open with parts has none');
    this.#payload = payload;
    this.#view = view;
    if (this.#starts.length < partCount) this.#starts = new Uint32Array(partCount * 2);
    let at = offset;
    let total = 0;
    for (let i = 0; i < partCount; i++) {
      assert(at + PART_HEADER <= payload.length, 'a part runs past the end of its entry');
      this.#starts[i] = at;
      const count = view.getUint32(at, true);
      const producerLength = payload[at + 4] as number;
      assert(count > 0 && producerLength <= PRODUCER_BYTES_MAX, 'a part is malformed');
      total += count;
      at += producerLength === 0 ? PART_HEADER : PART_PRODUCER_HEADER + producerLength;
      assert(at <= payload.length, 'a part runs past the end of its entry');
    }
    assert(total === countTotal, 'the parts of an open do not add up to its count');
    this.answers.reset(partCount);
    this.endOffset = at;
  }

  /**
   * Answers every part and returns how many new ids they need behind `head`. `subject`: its number (the one it will get, if it is not
   * `known`). `refusal`: why nobody can get new ids here, or -1.
   */
  decide(subject: number, known: boolean, head: number, refusal: number): number {
    const answers = this.answers;
    this.#base = head + 1;
    this.#newCount = 0;
    let allotted = 0;
    for (let i = 0; i < answers.length; i++) {
      const at = this.#starts[i] as number;
      const count = this.#view.getUint32(at, true);
      const room = count <= Number.MAX_SAFE_INTEGER - head - allotted;
      const obstacle = refusal >= 0 ? refusal : room ? -1 : REASON_CODE.IDS_EXHAUSTED;
      const first = head + allotted + 1;
      if (this.#payload[at + 4] === 0) {
        if (obstacle >= 0) this.#refuse(i, obstacle);
        else this.#answer(i, PartVerdict.ALLOTTED, first, this.#base);
      } else {
        this.#decideProducer(i, at, { subject, known, count, first, obstacle });
      }
      if (answers.verdict[i] === PartVerdict.ALLOTTED) allotted += count;
    }
    return allotted;
  }

  /** Ties the sequences that were just allotted to their allotment, so that a revoke forgets them. */
  remember(holder: number): void {
    for (let i = 0; i < this.#newCount; i++) {
      const producer = this.#newProducers[i] as Producer;
      this.#state.addPartOwner(holder, producer, this.#newSequences[i] as number, this.#newFirstIds[i] as number);
    }
  }

  /** For the chain of hashes. Reasons are left out: their numbers are the process's own. */
  answersHash(): number {
    const answers = this.answers;
    let hash = answers.length;
    for (let i = 0; i < answers.length; i++) {
      hash = Math.imul(hash ^ (answers.verdict[i] as number), 0x01000193);
      hash = Math.imul(hash ^ (answers.first[i] as number), 0x01000193);
    }
    return hash;
  }

  #decideProducer(i: number, at: number, part: ProducerPartPlan): void {
    const state = this.#state;
    const nameStart = at + PART_PRODUCER_HEADER;
    const nameEnd = nameStart + (this.#payload[at + 4] as number);
    const checksum = this.#view.getUint32(at + 5, true);
    const sequence = readSafeUint(this.#view, at + 9);
    assert(sequence >= 1, 'a sequence is below 1');
    const hash = subjectHash(this.#payload, nameStart, nameEnd);
    let producer = state.producers.find(this.#payload, nameStart, nameEnd, hash, state.time);
    if (producer === null ? sequence !== 1 : producer.window.isBelow(sequence)) {
      this.#refuse(i, REASON_CODE.SEQUENCE_UNKNOWN);
      return;
    }
    const entry = producer === null ? -1 : producer.window.find(sequence);
    if (producer !== null && entry >= 0) {
      this.#repeat(i, producer, entry, checksum, part);
      return;
    }
    // Looked up first, so that a retry is answered whatever the head is now; what is new has to pass.
    if (part.obstacle >= 0) {
      this.#refuse(i, part.obstacle);
      return;
    }
    if (producer === null) {
      if (!state.producers.tryMakeRoom(state.limits.producersMax, state.time)) {
        this.#refuse(i, REASON_CODE.PRODUCERS_FULL);
        return;
      }
      producer = state.producers.add(Uint8Array.from(this.#payload.subarray(nameStart, nameEnd)), hash);
    }
    state.producers.touch(producer, state.time);
    producer.window.put(sequence, part.first, part.subject, part.count, checksum);
    this.#newProducers[this.#newCount] = producer;
    this.#newSequences[this.#newCount] = sequence;
    this.#newFirstIds[this.#newCount] = part.first;
    this.#newCount += 1;
    this.#answer(i, PartVerdict.ALLOTTED, part.first, this.#base);
  }

  /** A sequence that has ids: those, or the wait for their verdict, or a refusal if it was used for something else. */
  #repeat(i: number, producer: Producer, entry: number, checksum: number, part: ProducerPartPlan): void {
    const state = this.#state;
    const window = producer.window;
    if (
      window.subject(entry) !== part.subject ||
      window.count(entry) !== part.count ||
      window.checksum(entry) !== checksum
    ) {
      this.#refuse(i, REASON_CODE.SEQUENCE_REUSED);
      return;
    }
    const first = window.firstId(entry);
    state.producers.touch(producer, state.time);
    if (first >= this.#base) {
      // Given ids a moment ago, by an earlier part of this very request.
      this.#answer(i, PartVerdict.WAITS, first, this.#base);
      return;
    }
    assert(part.known, 'a sequence was used for a subject that does not exist');
    const slot = state.slotOf(part.subject);
    const row = rowOfSubject(part.subject);
    const holder = state.holderOf(slot, row, first);
    if (holder === 0 || state.pool.state(holder) === AllotVerdict.STORED) {
      this.#answer(i, PartVerdict.STORED, first, 0);
      return;
    }
    assert(state.pool.state(holder) === AllotVerdict.OPEN, 'a revoked sequence was not forgotten');
    this.#answer(i, PartVerdict.WAITS, first, state.pool.base(holder));
  }

  #answer(i: number, verdict: number, first: number, waitsFor: number): void {
    this.answers.verdict[i] = verdict;
    this.answers.first[i] = first;
    this.answers.waitsFor[i] = waitsFor;
    this.answers.reason[i] = 0;
  }

  #refuse(i: number, reason: number): void {
    this.#answer(i, PartVerdict.REFUSED, 0, 0);
    this.answers.reason[i] = reason;
  }
}

/** What a part wants and where it would go. */
interface ProducerPartPlan {
  readonly subject: number;
  readonly known: boolean;
  readonly count: number;
  /** The first id it would get. */
  readonly first: number;
  /** Why it cannot get new ids, or -1. */
  readonly obstacle: number;
}
