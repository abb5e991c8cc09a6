/** `broker top` on a terminal: keys come in, looks at the node are taken, and the screen follows both. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Connection } from '../connection.ts';
import type { Context } from '../context.ts';
import { EXIT, type ExitCode } from '../failure.ts';
import type { Terminal } from '../output.ts';
import { keysOf } from './keys.ts';
import type { Sample } from './panes.ts';
import { pageOf, renderTop, type View } from './render.ts';
import { takeSample } from './sample.ts';
import { Screen } from './screen.ts';
import { firstState, pressed, type TopState } from './state.ts';

/** The clock of the screen, and what tells how long there was no answer. */
const CLOCK_MS = 1_000;
/** A call that is not answered is shown to be waited for after this time. */
const LATE_MS = 2_000;

export interface LiveOptions {
  readonly first: Parameters<typeof firstState>[0];
  readonly limit: number;
  readonly address: string;
  readonly hasColour: boolean;
  /** A new one whenever the one before has failed: it waits for nothing. */
  readonly connect: () => Connection;
}

export class LiveTop {
  readonly #context: Context;
  readonly #terminal: Terminal;
  readonly #options: LiveOptions;
  readonly #screen: Screen;
  #state: TopState;
  #sample: Sample | null = null;
  #failure: View['failure'] = null;
  #askedAt: number | null = null;
  #connection: Connection | null = null;
  /** Ends the wait for the next look. */
  #hurry = new AbortController();

  constructor(context: Context, terminal: Terminal, options: LiveOptions) {
    this.#context = context;
    this.#terminal = terminal;
    this.#options = options;
    this.#screen = new Screen(terminal, options.hasColour);
    this.#state = firstState(options.first);
  }

  /** Rejects if there is no first answer; later ones may be missing for as long as they like. */
  async run(): Promise<ExitCode> {
    const { stdin, interrupt } = this.#context;
    // Before the screen is taken: what is wrong from the beginning is told like any other command tells it.
    await this.#look();
    const onInput = (chunk: Buffer): void => this.#onInput(chunk.toString());
    const offResize = this.#terminal.onResize(() => {
      this.#screen.forget();
      this.#draw();
    });
    const clock = setInterval(() => this.#draw(), CLOCK_MS);
    const onInterrupt = (): void => this.#hurry.abort();
    interrupt.addEventListener('abort', onInterrupt);
    try {
      this.#screen.enter();
      stdin.setRawMode?.(true);
      stdin.on('data', onInput);
      stdin.resume();
      this.#draw();
      while (this.#state.end === null && !interrupt.aborted) {
        await this.#wait();
        if (this.#state.end === null && !this.#state.isPaused && !interrupt.aborted) await this.#tryLook();
      }
    } finally {
      clearInterval(clock);
      offResize();
      interrupt.removeEventListener('abort', onInterrupt);
      stdin.off('data', onInput);
      if (!stdin.destroyed) stdin.setRawMode?.(false);
      stdin.pause();
      this.#screen.leave();
      await this.#connection?.close();
    }
    return this.#state.end === 'interrupt' ? EXIT.interrupted : EXIT.ok;
  }

  async #wait(): Promise<void> {
    const { signal } = this.#hurry;
    // A key may have come while it was looking.
    if (!signal.aborted) await sleep(this.#state.intervalMs, undefined, { signal }).catch(() => undefined);
    this.#hurry = new AbortController();
  }

  async #tryLook(): Promise<void> {
    try {
      await this.#look();
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      this.#failure ??= { since: this.#askedAt ?? this.#context.now(), why };
      const failed = this.#connection;
      this.#connection = null;
      await failed?.close().catch(() => undefined);
    }
    this.#askedAt = null;
    this.#draw();
  }

  async #look(): Promise<void> {
    this.#askedAt = this.#context.now();
    this.#connection ??= this.#options.connect();
    const { pane, filter, sort } = this.#state;
    const wanted = {
      panes: [pane],
      sort: sort.subscriptions,
      limit: this.#options.limit,
      prefix: pane === 'subscriptions' ? filter : '',
    };
    this.#sample = await takeSample(this.#connection, wanted, this.#sample, this.#context.now);
    this.#failure = null;
    this.#askedAt = null;
  }

  #onInput(input: string): void {
    const before = this.#state;
    const page = pageOf(this.#terminal.rows);
    for (const key of keysOf(input)) {
      if (key === 'redraw') this.#screen.forget();
      this.#state = pressed(this.#state, key, page);
    }
    const { state } = { state: this.#state };
    const isOther =
      state.pane !== before.pane || state.filter !== before.filter || state.sort !== before.sort || state.end !== null;
    const isSooner = state.intervalMs < before.intervalMs || state.isPaused !== before.isPaused;
    if (isOther || isSooner) this.#hurry.abort();
    this.#draw();
  }

  #draw(): void {
    const { columns, rows } = this.#terminal;
    const now = this.#context.now();
    const { scroll } = this.#state;
    const isLate = this.#askedAt !== null && now - this.#askedAt > LATE_MS;
    const failure =
      this.#failure ?? (isLate && this.#askedAt !== null ? { since: this.#askedAt, why: 'waiting for it' } : null);
    const lines = renderTop({
      state: this.#state,
      sample: this.#sample,
      failure,
      address: this.#options.address,
      now,
      columns,
      rows,
    });
    // What was scrolled beyond the end is forgotten, so that one step back shows.
    const last = Math.max(0, (this.#sample?.rows[this.#state.pane].length ?? 0) - pageOf(rows));
    if (scroll > last) this.#state = { ...this.#state, scroll: last };
    const text = this.#screen.draw(lines);
    if (text !== '') this.#terminal.writeNow(text);
  }
}
