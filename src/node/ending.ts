import type { Log } from '../telemetry/log.ts';

/** What a part may take to stop, such as to finish what is on its way to the disk. */
const STOP_MS = 5_000;

/** The end of a broker, step by step: none keeps the next ones from their turn, whether it hangs or fails. */
export class Ending {
  readonly #log: Pick<Log, 'error'>;
  #isStuck = false;

  constructor(log: Pick<Log, 'error'>) {
    this.#log = log;
  }

  /** True if a part did not stop: the process has to be ended. */
  get isStuck(): boolean {
    return this.#isStuck;
  }

  /** Waits no longer than `withinMs`: what does not end by itself is cut off by the end of the process, which is as safe as a crash. */
  async step(what: string, stop: () => Promise<void> | void, withinMs = STOP_MS): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<'late'>((resolve) => {
      timer = setTimeout(resolve, withinMs, 'late');
    });
    const outcome = await Promise.race([this.#run(what, stop), late]);
    clearTimeout(timer);
    if (outcome !== 'late') return;
    this.#log.error('something did not stop in time', { what, ms: withinMs });
    this.#isStuck = true;
  }

  async #run(what: string, stop: () => Promise<void> | void): Promise<void> {
    try {
      await stop();
    } catch (error) {
      const detail = error instanceof Error ? (error.stack ?? error.message) : String(error);
      this.#log.error('something failed as it stopped', { what, error: detail });
    }
  }
}
