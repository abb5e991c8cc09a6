import { BrokerError } from '../base/errors.ts';
import { DiskError } from '../storage/disk.ts';
import { StartError } from '../storage/start-error.ts';
import type { Outcome } from './types.ts';

/** What stops a run, and what to do next. */
export class Refusal extends Error {
  override name = 'Refusal';
  readonly next: string;

  constructor(message: string, next = '', options?: ErrorOptions) {
    super(message, options);
    this.next = next;
  }
}

const AGAIN = 'run the same command again: it goes on where it stopped';

/** `again`: what to do behind a run that was cut off. */
export async function outcomeOf<T>(run: () => Promise<T>, again = AGAIN): Promise<Outcome<T>> {
  try {
    return { kind: 'done', summary: await run() };
  } catch (error) {
    if (error instanceof Interrupted) return { kind: 'refused', message: error.message, next: again };
    if (error instanceof Refusal) return { kind: 'refused', message: error.message, next: error.next };
    if (error instanceof StartError) return { kind: 'refused', message: error.message, next: '' };
    if (error instanceof DiskError || error instanceof BrokerError) {
      return { kind: 'refused', message: `stopped: ${whyOf(error)}`, next: again };
    }
    throw error;
  }
}

class Interrupted extends Error {
  override name = 'Interrupted';
}

/** Between two steps. */
export function checkInterrupt(interrupt: AbortSignal): void {
  if (interrupt.aborted) throw new Interrupted('interrupted');
}

/** With its causes: what a driver says is what people look for. */
function whyOf(error: Error): string {
  const words = [error.message];
  for (let { cause } = error; cause instanceof Error; { cause } = cause) words.push(cause.message);
  return [...new Set(words)].join(': ');
}
