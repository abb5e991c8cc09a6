/** What has been checked so far, and how that ended. */
import { styleText } from 'node:util';
import { table } from '../../perf/lib/report.ts';

interface Row {
  readonly what: string;
  readonly result: 'passed' | 'failed' | 'skipped';
  readonly seconds: number;
  readonly detail: string;
}

export class CheckReport {
  readonly #rows: Row[] = [];
  readonly #say: (text: string) => void;

  constructor(say: (text: string) => void) {
    this.#say = say;
  }

  /** `work` resolves with what there is to tell, and rejects if it failed. True if it passed. */
  async check(what: string, work: () => Promise<string>): Promise<boolean> {
    const began = performance.now();
    const seconds = (): number => (performance.now() - began) / 1_000;
    try {
      this.#add({ what, result: 'passed', detail: await work(), seconds: seconds() });
      return true;
    } catch (error) {
      const detail = error instanceof Error ? error.message : String(error);
      this.#add({ what, result: 'failed', detail, seconds: seconds() });
      return false;
    }
  }

  skip(what: string, why: string): void {
    this.#add({ what, result: 'skipped', detail: why, seconds: 0 });
  }

  #add(row: Row): void {
    this.#rows.push(row);
    const colour = row.result === 'failed' ? 'red' : row.result === 'passed' ? 'green' : 'yellow';
    this.#say(`${styleText(colour, row.result)} ${row.what} (${row.seconds.toFixed(1)} s): ${row.detail}`);
  }

  get failed(): number {
    return this.#rows.filter(({ result }) => result === 'failed').length;
  }

  table(): string {
    const head = ['what', 'result', 'seconds'];
    const rows = this.#rows.map(({ what, result, seconds }) => [what, result, seconds.toFixed(1)]);
    const skipped = this.#rows.filter(({ result }) => result === 'skipped');
    const lines = [table([head, ...rows])];
    if (skipped.length > 0) lines.push('Skipped:', ...skipped.map(({ what, detail }) => `  - ${what}: ${detail}`));
    return lines.join('\n');
  }
}
