import type { Logger } from '../telemetry/log.ts';
import { watchTerminal } from '../telemetry/terminal.ts';

/** Ctrl-C reaches a process that npm started twice, from the terminal and from npm: within this time, in ms, it is one signal. */
const ECHO_MS = 300;

/**
 * The first SIGTERM or SIGINT resolves; the second one ends the process at once, which is as safe as a crash. SIGHUP reads the configuration
 * again, unless it says that the terminal is gone.
 */
export function watchSignals(
  logger: Logger,
  { reload, exit }: { readonly reload: () => void; readonly exit: () => void },
): { readonly first: Promise<void> } {
  let firstAt = 0;
  const first = new Promise<void>((resolve) => {
    const onSignal = (signal: NodeJS.Signals): void => {
      const now = performance.now();
      if (firstAt > 0 && now - firstAt < ECHO_MS) return;
      logger.info(firstAt === 0 ? 'stopping' : 'stopping at once', { signal });
      if (firstAt > 0) exit();
      firstAt = now;
      resolve();
    };
    process.on('SIGTERM', onSignal);
    process.on('SIGINT', onSignal);
    const isTerminalGone = watchTerminal();
    process.on('SIGHUP', () => (isTerminalGone() ? onSignal('SIGHUP') : reload()));
  });
  return { first };
}
