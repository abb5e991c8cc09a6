import { isatty } from 'node:tty';

const STANDARD = [0, 1, 2] as const;

/**
 * For a SIGHUP, which means two things: a terminal was closed, or somebody asks a daemon to read its configuration again. Call this at the
 * start; what it returns says whether the terminal of that time is gone.
 */
export function watchTerminal(): () => boolean {
  const terminals = STANDARD.filter((descriptor) => isatty(descriptor));
  return () => terminals.length > 0 && !terminals.some((descriptor) => isatty(descriptor));
}
