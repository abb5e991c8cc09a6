/** A bar on the terminal that is written over while a bench runs; silent where stderr is no terminal. */
import type { Context } from '../context.ts';
import { counted } from '../top/text.ts';
import type { Figures } from './figures.ts';

const INTERVAL_MS = 200;
const WIDTH = 24;

/** Shows how far `figures` is until `work` is over. */
export async function withProgress<T>(
  context: Context,
  options: { readonly figures: Figures; readonly total: number; readonly isShown: boolean },
  work: () => Promise<T>,
): Promise<T> {
  if (!options.isShown || !context.notes.isTerminal) return await work();
  const show = async (): Promise<void> => {
    const { messages } = options.figures;
    const share = options.total === 0 ? 1 : Math.min(1, messages / options.total);
    const filled = Math.round(share * WIDTH);
    const bar = `[${'#'.repeat(filled)}${'.'.repeat(WIDTH - filled)}]`;
    const rate = options.figures.rate(performance.now()).toLocaleString('en-US');
    await context.notes.write(`\r${bar} ${counted(messages, 'message')}, ${rate}/s `);
  };
  // A terminal that is gone is found by whatever is written next; the bench goes on.
  const timer = setInterval(() => void show().catch(() => clearInterval(timer)), INTERVAL_MS);
  try {
    return await work();
  } finally {
    clearInterval(timer);
    await show();
    await context.notes.write('\n');
  }
}
