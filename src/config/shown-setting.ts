import { MASK } from './field.ts';
import { allKeys } from './schema.ts';
import { disguised } from './sources.ts';

/** What may be the name of a key, if one that is misspelt; a key, token or password that stands in its place is hardly ever one. */
const NAME = /^[a-z_.]{1,40}$/;

/**
 * A setting that somebody wants to be another, taken or not, as it may be written down. Shown is what its key says that may be. Of a key that nobody
 * knows, and of a value that its key does not take, nobody can tell what it is: a secret whose name was misspelt, or one in the wrong place.
 */
export function shownSetting(name: string, text: string): { readonly key: string; readonly value: string } {
  const key = allKeys().find((one) => one.name === name || one.key === name);
  if (key === undefined) return { key: NAME.test(name) ? name : MASK, value: MASK };
  return { key: name, value: key.field.schema.safeParse(text).success ? disguised(key, text) : MASK };
}
