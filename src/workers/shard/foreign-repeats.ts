import { BrokerError } from '../../base/errors.ts';
import { isOutage } from '../../storage/driver-errors.ts';
import type { MessageStore, StoredItem } from '../../storage/store.ts';
import type { SubjectState } from './lookup-path.ts';
import type { ActiveSubject, Repeat } from './subjects.ts';

export interface ForeignRepeatsPorts {
  readonly store: Pick<MessageStore, 'read'>;
  /** Asks where the log stands with the subject and the id, as of now. */
  readonly confirm: (subject: ActiveSubject, id: number, learned: (state: SubjectState) => void) => void;
  readonly stored: (repeat: Repeat) => void;
  /** Nothing of it was stored: it may come again. */
  readonly madeVoid: (subject: ActiveSubject, repeat: Repeat) => void;
  /** No verdict in time. */
  readonly unknown: (subject: ActiveSubject, repeat: Repeat) => void;
  readonly onProgress: () => void;
}

/**
 * With peers: calls (not batches of a stream, whose sender asks again in order) that repeat a sequence whose first copy another node was sent, and has not
 * closed. What becomes of that is for the log to say, and which of both it was, for the store.
 */
export class ForeignRepeats {
  readonly #ports: ForeignRepeatsPorts;
  readonly #subjects = new Set<ActiveSubject>();
  readonly #asking = new Set<Repeat>();

  constructor(ports: ForeignRepeatsPorts) {
    this.#ports = ports;
  }

  /** The subject has got another one. */
  added(subject: ActiveSubject): void {
    this.#subjects.add(subject);
  }

  /** The log has settled ids of the subject. */
  progressed(subject: ActiveSubject): void {
    if (!this.#subjects.has(subject)) return;
    for (const repeat of subject.repeats) if (subject.isResolved(repeat.id)) this.#ask(subject, repeat);
  }

  /** About once a second: a batch may have its verdict before everything below it is settled. `now` in ms of performance.now(). */
  sweep(now: number, timeoutMs: number): void {
    for (const subject of this.#subjects) {
      for (const repeat of [...subject.repeats]) {
        if (now - repeat.since < timeoutMs) this.#ask(subject, repeat);
        else if (remove(subject, repeat)) this.#ports.unknown(subject, repeat);
      }
      if (subject.repeats.length === 0) this.#subjects.delete(subject);
    }
  }

  #ask(subject: ActiveSubject, repeat: Repeat): void {
    if (this.#asking.has(repeat)) return;
    this.#asking.add(repeat);
    this.#ports.confirm(subject, repeat.id, ({ undecided }) => {
      if (undecided || !subject.repeats.includes(repeat)) this.#asking.delete(repeat);
      else void this.#look(subject, repeat);
    });
  }

  async #look(subject: ActiveSubject, repeat: Repeat): Promise<void> {
    const { store, stored, madeVoid, onProgress } = this.#ports;
    try {
      const { items } = await store.read(subject.ref, repeat.id, repeat.id, 1);
      const item: StoredItem | undefined = items[0];
      if (!remove(subject, repeat)) return;
      // Every void has its mark; what is not there was stored, and has expired or was trimmed.
      if (item?.kind === 'void') madeVoid(subject, repeat);
      else stored(repeat);
    } catch (error) {
      if (error instanceof BrokerError && error.reason === 'SHUTTING_DOWN') return;
      if (!isOutage(error)) throw error;
    } finally {
      this.#asking.delete(repeat);
      onProgress();
    }
  }
}

/** False if it was answered meanwhile. */
function remove(subject: ActiveSubject, repeat: Repeat): boolean {
  const at = subject.repeats.indexOf(repeat);
  if (at >= 0) subject.repeats.splice(at, 1);
  return at >= 0;
}
