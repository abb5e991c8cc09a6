/** A failpoint that holds a thread of a broker process until the test lets it go on, however long what it waits for takes on this machine. */
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { temporaryFolder } from './temporary.ts';

export class Gate {
  readonly #file: string;

  constructor(t: Pick<TestContext, 'after'>) {
    this.#file = join(temporaryFolder(t, 'broker-gate-'), 'open');
  }

  /** For BROKER_FAILPOINTS: the thread that comes to `site` for the `hit`-th time (from 1) waits there. */
  at(site: string, hit: number): string {
    return `${site}=wait:${this.#file}@${hit}`;
  }

  /** For BROKER_FAILPOINTS: whoever comes to `site` while the gate is shut, as it is at first, waits there. */
  each(site: string): string {
    return `${site}=wait:${this.#file}`;
  }

  shut(): void {
    rmSync(this.#file);
  }

  open(): void {
    writeFileSync(this.#file, '');
  }
}
