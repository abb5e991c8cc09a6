import { type Disguise, MASK } from './field.ts';

/** Parameters of a database's URL that are secrets. */
const SECRET_PARAMETERS = ['password', 'sslpassword'] as const;

/** For URLs: all is shown but the password; nothing of one that cannot be read, for then nobody knows where its password is. */
export const URL_DISGUISE: Disguise = {
  mask: (text) => {
    if (!URL.canParse(text)) return MASK;
    const url = new URL(text);
    if (url.password !== '') url.password = MASK;
    for (const name of SECRET_PARAMETERS) if (url.searchParams.has(name)) url.searchParams.set(name, MASK);
    return String(url);
  },
  secretsIn: (text) => {
    if (!URL.canParse(text)) return [text];
    const url = new URL(text);
    const parameters = SECRET_PARAMETERS.flatMap((name) => url.searchParams.getAll(name));
    const found = [url.password, decoded(url.password), ...parameters].filter((secret) => secret !== '');
    return found.length === 0 ? [] : [...new Set([...found, text])];
  },
};

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    // A lone "%": it is used as it stands.
    return text;
  }
}
