/**
 * Looks now and then who the members are, one look at a time: while the thread that is asked hangs, questions must not pile up in front of it. Nothing
 * that has an end waits for it longer than it has time.
 */
export class Lookout {
  readonly #look: () => Promise<void>;
  #running: Promise<void> | null = null;
  #timer: NodeJS.Timeout | undefined;

  /** `look` never rejects. */
  constructor(look: () => Promise<void>) {
    this.#look = look;
  }

  start(everyMs: number): void {
    this.#timer = setInterval(() => void this.look(), everyMs).unref();
  }

  /** Resolves with the end of the look that is on its way, or of a new one. */
  look(): Promise<void> {
    this.#running ??= this.#look().finally(() => {
      this.#running = null;
    });
    return this.#running;
  }

  /** No looks of its own any more; one that begins now, behind the one on its way, is waited for, but no longer than `withinMs`. */
  async last(withinMs: number): Promise<void> {
    clearInterval(this.#timer);
    const looked = async (): Promise<void> => {
      await this.#running;
      await this.look();
    };
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, withinMs);
    });
    await Promise.race([looked(), late]);
    clearTimeout(timer);
  }
}
