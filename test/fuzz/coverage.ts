/** Loads the modules of src/ with marks at their branches (instrument.ts). For a thread of its own: its modules stay so. */
import { registerHooks, stripTypeScriptTypes } from 'node:module';
import { join, relative } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { ROOT } from '../support/source-tree.ts';
import { instrument } from './instrument.ts';

const POINTS_MAX = 1 << 17;
const SOURCE = pathToFileURL(join(ROOT, 'src/')).href;
/** Defects that are there to be found. */
const PLANTED = new URL('./planted.ts', import.meta.url).href;

export class Coverage {
  /** Points that were reached since it was last set to 0. */
  fresh = 0;
  /** Points that were ever reached. */
  reached = 0;
  points = 0;
  /** By path from the root. */
  readonly numbers = new Map<string, ReadonlySet<number>>();
  readonly words = new Map<string, ReadonlySet<string>>();
  readonly #seen = new Uint8Array(POINTS_MAX);

  /** Before anything of src/ was imported in this thread. Once in a thread. */
  static begin(): Coverage {
    const coverage = new Coverage();
    Object.assign(globalThis, { __fuzzPoints: coverage.#functions() });
    registerHooks({
      load: (url, context, nextLoad) => {
        const loaded = nextLoad(url, context);
        if ((!url.startsWith(SOURCE) && url !== PLANTED) || loaded.format !== 'module-typescript') return loaded;
        return { ...loaded, format: 'module', source: coverage.#marked(url, String(loaded.source)) };
      },
    });
    return coverage;
  }

  #marked(url: string, source: string): string {
    const { text, points, numbers, words } = instrument(stripTypeScriptTypes(source), this.points);
    this.points += points;
    if (this.points > POINTS_MAX) throw new Error(`more than ${POINTS_MAX} branches`);
    const path = relative(ROOT, fileURLToPath(url)).replaceAll('\\', '/');
    this.numbers.set(path, numbers);
    this.words.set(path, words);
    return text;
  }

  #functions() {
    const seen = this.#seen;
    const reach = (point: number): void => {
      seen[point] = 1;
      this.fresh += 1;
      this.reached += 1;
    };
    return {
      h(point: number): void {
        if (seen[point] === 0) reach(point);
      },
      y<T>(point: number, value: T): T {
        const at = value ? point : point + 1;
        if (seen[at] === 0) reach(at);
        return value;
      },
      t(point: number): boolean {
        if (seen[point] === 0) reach(point);
        return true;
      },
      f(point: number): boolean {
        if (seen[point] === 0) reach(point);
        return false;
      },
    };
  }
}
