import type { Fence } from '../../storage/fence.ts';
import type { LogLine } from '../messages.ts';

/** How often it is looked whether the database is still this process's, in ms, whatever is written meanwhile. */
const LOOK_MS = 1_000;

export interface FenceWatchParts {
  readonly fence: Pick<Fence, 'lostTo'>;
  readonly log: (line: LogLine) => void;
  /** Called once. `to`: who has it now, in words. */
  readonly onLost: (to: string) => void;
}

/** Asks again and again, one question at a time. One that is not answered proves nothing: a database that is away takes no messages either. */
export class FenceWatch {
  readonly #parts: FenceWatchParts;
  #timer: NodeJS.Timeout | null = null;
  #isLooking = false;
  #isAnswered = true;

  constructor(parts: FenceWatchParts) {
    this.#parts = parts;
  }

  start(): void {
    this.#timer ??= setInterval(() => void this.#maybeLook(), LOOK_MS);
  }

  stop(): void {
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#timer = null;
  }

  async #maybeLook(): Promise<void> {
    if (this.#isLooking) return;
    this.#isLooking = true;
    try {
      const to = await this.#parts.fence.lostTo();
      this.#isAnswered = true;
      if (to !== null && this.#timer !== null) {
        this.stop();
        this.#parts.onLost(to);
      }
    } catch (error) {
      if (this.#isAnswered && this.#timer !== null) this.#tell(error);
      this.#isAnswered = false;
    }
    this.#isLooking = false;
  }

  /** Once for each time that the database is away. */
  #tell(error: unknown): void {
    const message = 'the database did not say whether it is still of this process; it is asked again every second';
    this.#parts.log({ kind: 'log', level: 'warn', message, fields: { error: String(error) } });
  }
}
