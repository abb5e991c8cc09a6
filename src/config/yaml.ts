import { createRequire } from 'node:module';
import type * as Yaml from 'yaml';

const require = createRequire(import.meta.url);

/** The library for YAML, loaded with the first text that is read: most starts, and nearly all commands, read none. */
export function yaml(): typeof Yaml {
  return require('yaml') as typeof Yaml;
}
