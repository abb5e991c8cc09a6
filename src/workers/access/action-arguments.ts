/** What an operator's action was given, as it may be written down. */

/** Takes out what nobody should read. */
export interface Disguises {
  /** Of a setting that is to be changed, by what the schema says of its key. */
  readonly setting: (key: string, value: string) => { readonly key: string; readonly value: string };
  /** Of any other text. */
  readonly text: (text: string) => string;
}

const TEXT_MAX = 256;

/** Without what is empty, secret or long. */
export function shownArguments(
  method: string,
  given: Readonly<Record<string, unknown>>,
  disguises: Disguises,
): Record<string, unknown> {
  if (method !== 'ChangeSetting') return shownFields(given, disguises);
  const { key = '', value = '' } = given;
  return shownFields(disguises.setting(String(key), String(value)), disguises);
}

function shownFields(given: object, disguises: Disguises): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(given).flatMap(([name, value]) => (value === '' ? [] : [[name, shown(value, disguises)]])),
  );
}

/** Keys and bodies come as bytes, of which the number is told. */
function shown(value: unknown, disguises: Disguises): unknown {
  if (value instanceof Uint8Array) return `${value.length} bytes`;
  // Cut last: of a secret that was cut nobody would know what it is.
  if (typeof value === 'string') return short(disguises.text(value));
  return typeof value === 'object' && value !== null ? shownFields(value, disguises) : value;
}

/** For what others choose, and so how long it is. */
export function short(text: string): string {
  return text.length > TEXT_MAX ? `${text.slice(0, TEXT_MAX)}…` : text;
}
