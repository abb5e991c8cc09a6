/** Inputs that once failed: they are the first that every run of their target tries. */
import { readFileSync } from 'node:fs';

const FILE = new URL('./regressions.txt', import.meta.url);

/** By target. A line has its name, the input in base64, and behind # what it did. */
export function regressionsIn(text = readFileSync(FILE, 'utf8')): Map<string, Uint8Array[]> {
  const found = new Map<string, Uint8Array[]>();
  for (const line of text.split('\n')) {
    const [name = '', input = ''] = line.replace(/#.*$/, '').trim().split(/\s+/);
    if (name !== '') found.set(name, [...(found.get(name) ?? []), Buffer.from(input, 'base64')]);
  }
  return found;
}
