/** One line on the terminal that says what runs now; silent where stderr is no terminal. */
export interface Progress {
  say(text: string): void;
  clear(): void;
}

export function terminalProgress(stream: NodeJS.WriteStream = process.stderr): Progress {
  if (!stream.isTTY) return { say: () => undefined, clear: () => undefined };
  const show = (text: string): void => void stream.write(`\r\x1b[K${text.slice(0, stream.columns - 1)}`);
  return { say: show, clear: () => show('') };
}

export function bar(done: number, total: number, width = 24): string {
  const filled = total === 0 ? width : Math.min(width, Math.round((done / total) * width));
  return `[${'#'.repeat(filled)}${'.'.repeat(width - filled)}]`;
}
