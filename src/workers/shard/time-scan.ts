import { BrokerError } from '../../base/errors.ts';
import { BatchView } from '../../batch/batch-view.ts';
import { isOutage } from '../../storage/driver-errors.ts';
import type { MessageStore } from '../../storage/store.ts';
import type { ActiveSubject } from './subjects.ts';

const READ_BYTES = 256 * 1024;
/** Before a read that a database refused is tried again, in ms. */
const READ_AGAIN_MS = 250;

interface Scan {
  /** What was settled below it has been looked at. */
  next: number;
  /** Somebody wants to know of it from here on, which came while a read was on its way. */
  rewindTo: number;
  isReading: boolean;
}

/**
 * With peers: tells when the batches of a subject were published that the log has settled since somebody began to wait for a time. Those of other
 * nodes are seen nowhere else, and what is allotted says nothing: it may become void. One scan serves all who wait for times of a subject,
 * and reads what lies in memory first.
 */
export class TimeScans {
  readonly #store: Pick<MessageStore, 'read'>;
  readonly #onBatch: (subject: ActiveSubject, id: number, publishedAt: number) => void;
  readonly #onProgress: () => void;
  readonly #scans = new Map<ActiveSubject, Scan>();
  readonly #view = new BatchView();

  /** `onBatch` hears of settled batches in the order of ids, of some again. */
  constructor(
    store: Pick<MessageStore, 'read'>,
    onBatch: (subject: ActiveSubject, id: number, publishedAt: number) => void,
    onProgress: () => void,
  ) {
    this.#store = store;
    this.#onBatch = onBatch;
    this.#onProgress = onProgress;
  }

  /** Somebody waits for a time that no id below `next` has. */
  begin(subject: ActiveSubject, next: number): void {
    const scan = this.#scans.get(subject);
    if (scan === undefined) this.#scans.set(subject, { next, rewindTo: Number.POSITIVE_INFINITY, isReading: false });
    else if (scan.isReading) scan.rewindTo = Math.min(scan.rewindTo, next);
    else scan.next = Math.min(scan.next, next);
    this.progressed(subject);
  }

  /** The log has settled more of the subject. */
  progressed(subject: ActiveSubject): void {
    const scan = this.#scans.get(subject);
    if (scan !== undefined && !scan.isReading) void this.#run(subject, scan);
  }

  /** Nobody waits for a time of the subject any more. It may never progress: the scan does not wait for that, and would keep it. */
  end(subject: ActiveSubject): void {
    // A read that is on its way looks whether somebody still waits.
    if (this.#scans.get(subject)?.isReading === false) this.#scans.delete(subject);
  }

  async #run(subject: ActiveSubject, scan: Scan): Promise<void> {
    scan.isReading = true;
    while (subject.awaiting > 0 && scan.next <= subject.resolvedTo) {
      try {
        const read = this.#store.read(subject.ref, scan.next, subject.resolvedTo, READ_BYTES);
        const { items, next } = read instanceof Promise ? await read : read;
        for (const item of items) {
          if (item.kind !== 'data') continue;
          this.#view.wrap(item.bytes, 0);
          this.#onBatch(subject, item.from, this.#view.publishedAt);
        }
        scan.next = Math.min(next, scan.rewindTo);
        scan.rewindTo = Number.POSITIVE_INFINITY;
        if (read instanceof Promise) this.#onProgress();
      } catch (error) {
        if (error instanceof BrokerError && error.reason === 'SHUTTING_DOWN') return;
        if (!isOutage(error)) throw error;
        await new Promise((resolve) => setTimeout(resolve, READ_AGAIN_MS));
      }
    }
    scan.isReading = false;
    if (subject.awaiting === 0) this.#scans.delete(subject);
  }
}
