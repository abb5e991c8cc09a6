/** The source files of the project as the tidy tests see them. */
import { globSync, readFileSync } from 'node:fs';
import { dirname, join, posix } from 'node:path';
import { fileURLToPath } from 'node:url';

export const ROOT = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

export interface SourceFile {
  /** From the root, with forward slashes: `src/base/assert.ts`. */
  readonly path: string;
  readonly text: string;
}

export interface Import {
  readonly from: string;
  /** A path from the root for our own files, else the module's name: `node:fs`, `zod`. */
  readonly target: string;
  /** Erased when types are stripped, so it cannot make a cycle at run time. */
  readonly isTypeOnly: boolean;
}

/** Code that people wrote: generated files are left out. */
export function sourceFiles(...folders: readonly string[]): SourceFile[] {
  const patterns = folders.map((folder) => `${folder}/**/*.{ts,mjs}`);
  const paths = globSync(patterns, { cwd: ROOT }).map((path) => path.replaceAll('\\', '/'));
  return paths
    .filter((path) => !path.includes('/gen/'))
    .sort()
    .map((path) => ({ path, text: readFileSync(join(ROOT, path), 'utf8') }));
}

const IMPORT = /^\s*(?:import|export)\s+(type\s+)?(?:[^'";]*?\sfrom\s+)?'([^']+)'/gm;
const DYNAMIC_IMPORT = /\bimport\(\s*'([^']+)'\s*\)/g;

export function importsOf(file: SourceFile): Import[] {
  const resolve = (target: string): string =>
    target.startsWith('.') ? posix.normalize(posix.join(posix.dirname(file.path), target)) : target;
  const text = withoutComments(file.text);
  const fixed = [...text.matchAll(IMPORT)].map((match) => ({
    from: file.path,
    target: resolve(match[2] as string),
    isTypeOnly: match[1] !== undefined || isAllTypes(match[0]),
  }));
  const dynamic = [...text.matchAll(DYNAMIC_IMPORT)].map((match) => ({
    from: file.path,
    target: resolve(match[1] as string),
    isTypeOnly: false,
  }));
  return [...fixed, ...dynamic];
}

/** `import { type A, type B } from …` */
function isAllTypes(statement: string): boolean {
  const names = /\{([^}]*)\}/
    .exec(statement)?.[1]
    ?.split(',')
    .filter((name) => name.trim() !== '');
  return names !== undefined && names.length > 0 && names.every((name) => name.trim().startsWith('type '));
}

/** The text with comments blanked out (line breaks stay, so line numbers hold); strings are left as they are. */
export function withoutComments(text: string): string {
  const token = /\/\*[\s\S]*?\*\/|\/\/[^\n]*|'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"|`(?:\\.|[^`\\])*`/g;
  return text.replace(token, (found) => (/^\/[/*]/.test(found) ? found.replace(/[^\n]/g, ' ') : found));
}

/** The text with comments and the contents of strings blanked out: only code is left. */
export function codeOnly(text: string): string {
  const quoted = /'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"|`(?:\\.|[^`\\])*`/g;
  return withoutComments(text).replace(quoted, (found) => found.replace(/[^\n]/g, ' '));
}

/** `path:line` of every place in `text` that matches (the pattern must be global). */
export function placesOf(file: SourceFile, text: string, pattern: RegExp): string[] {
  return [...text.matchAll(pattern)].map((match) => {
    const line = text.slice(0, match.index).split('\n').length;
    return `${file.path}:${line}: ${match[0].trim().split('\n')[0]}`;
  });
}
