/** Takes secrets out of text that people will read, whoever put them there: the last of several guards, behind not putting them there. */

export const REDACTED = '***';

/** Shorter ones, and those that are words, would take innocent text along, and tell what they are by where they are missing. */
const SECRET_CHARACTERS_MIN = 8;
const WORD = /^[a-z]+$/i;
/** The password of a URL, known or not. */
const URL_PASSWORD = /(:\/\/[^\s/:@"']*:)[^\s/@"']+@/g;

export class Redactor {
  readonly #spellings: readonly string[];

  constructor(secrets: readonly string[]) {
    const long = secrets.filter((secret) => secret.length >= SECRET_CHARACTERS_MIN && !WORD.test(secret));
    // As JSON has them, and percent-encoded, too. The longest first, so that none is cut by a part of it.
    const spellings = long.flatMap((secret) => [
      secret,
      JSON.stringify(secret).slice(1, -1),
      encodeURIComponent(secret),
    ]);
    this.#spellings = [...new Set(spellings)].sort((left, right) => right.length - left.length);
  }

  redact(text: string): string {
    let shown = text;
    for (const secret of this.#spellings) if (shown.includes(secret)) shown = shown.replaceAll(secret, REDACTED);
    return shown.includes('://') ? shown.replace(URL_PASSWORD, `$1${REDACTED}@`) : shown;
  }
}
