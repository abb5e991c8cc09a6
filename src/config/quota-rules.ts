/**
 * The rules of `quotas.rules` as text:
 *
 *   RULES  = RULE { ( "," | ";" | line break ) RULE }
 *   RULE   = TENANT [ "/" PREFIX ] "=" LIMIT { " " LIMIT }
 *   TENANT = a tenant by name, or "*": every tenant that no other rule of the same prefix names, each for itself
 *   PREFIX = whole tokens of subjects; ",", ";", "%" and white space at its ends are written %2C, %3B, %25 and %20
 *   LIMIT  = NUMBER "msg/s" | SIZE "/s" | "unlimited"
 */
import type { QuotaRule } from '../quota/quota-rules.ts';
import { formatBytes, parseBytes } from './units.ts';

export type { QuotaRule };

export const QUOTA_RULES_MAX = 100;
/** How it is written that there is no rule. */
export const NO_RULES = '(none)';
/** Anything above it is no limit that anybody would notice. */
const RATE_MAX = 1e12;
const RATE_MIN = 0.001;
const SUBJECT_BYTES_MAX = 255;

const TENANT = /^([A-Za-z0-9._-]{1,64}|\*)$/;
const MESSAGES = /^(\d+(?:\.\d+)?)msg\/s$/;
const BYTES = /^(\S+)\/s$/;

/** The rules, or what is wrong with the text. */
export function parseQuotaRules(text: string): readonly QuotaRule[] | string {
  const rules: QuotaRule[] = [];
  const names = new Set<string>();
  for (const part of text.split(/[,;\n]/)) {
    const trimmed = part.trim();
    if (trimmed === '') continue;
    const rule = parseRule(trimmed);
    if (typeof rule === 'string') return `${JSON.stringify(trimmed)}: ${rule}`;
    const name = nameOf(rule);
    if (names.has(name)) return `there are two rules for ${name}`;
    names.add(name);
    rules.push(Object.freeze(rule));
  }
  if (rules.length > QUOTA_RULES_MAX) return `there are more than ${QUOTA_RULES_MAX} rules`;
  return Object.freeze(rules);
}

/** As `parseQuotaRules` reads it. */
export function formatQuotaRules(rules: readonly QuotaRule[]): string {
  return rules.map((rule) => `${nameOf(rule)}=${formatLimits(rule)}`).join(', ');
}

export function formatLimits({ messagesPerSecond, bytesPerSecond }: QuotaRule): string {
  const limits = [
    ...(messagesPerSecond > 0 ? [`${messagesPerSecond}msg/s`] : []),
    ...(bytesPerSecond > 0 ? [`${formatBytes(bytesPerSecond)}/s`] : []),
  ];
  return limits.length === 0 ? 'unlimited' : limits.join(' ');
}

/** `acme`, `acme/orders`, `*`. */
export function nameOf({ tenant, prefix }: Pick<QuotaRule, 'tenant' | 'prefix'>): string {
  const name = tenant === '' ? '*' : tenant;
  return prefix === '' ? name : `${name}/${prefix.replace(/[%,;\n]|^\s|\s$/g, encodeURIComponent)}`;
}

/** Name and prefix as `nameOf` writes them, or what is wrong with them. */
export function parseQuotaName(text: string): Pick<QuotaRule, 'tenant' | 'prefix'> | string {
  const slash = text.indexOf('/');
  const tenant = (slash < 0 ? text : text.slice(0, slash)).trim();
  if (!TENANT.test(tenant)) return 'a tenant is 1 to 64 of A-Z, a-z, 0-9, ".", "_" and "-", or "*" for all others';
  const encoded = slash < 0 ? null : text.slice(slash + 1);
  const prefix = encoded === null ? '' : decoded(encoded);
  if (prefix === null || (encoded !== null && prefix === ''))
    return 'behind "/" stands the beginning of subjects, in which "%" is written %25';
  if (Buffer.byteLength(prefix) > SUBJECT_BYTES_MAX) return 'no subject begins with more than 255 bytes';
  return { tenant: tenant === '*' ? '' : tenant, prefix };
}

/** `100msg/s 1MiB/s` or `unlimited`, or what is wrong with it. */
export function parseQuotaLimits(text: string): Pick<QuotaRule, 'messagesPerSecond' | 'bytesPerSecond'> | string {
  const found = { messagesPerSecond: 0, bytesPerSecond: 0 };
  if (text.trim() === 'unlimited') return found;
  for (const limit of text.trim().split(/\s+/)) {
    const messages = MESSAGES.exec(limit)?.[1];
    const size = BYTES.exec(limit)?.[1];
    const field = messages === undefined ? 'bytesPerSecond' : 'messagesPerSecond';
    const rate = messages === undefined ? parseBytes(size ?? '') : Number(messages);
    if (rate === null) return 'a limit is such as 100msg/s, 1MiB/s, both with a space between, or unlimited';
    if (rate < RATE_MIN || rate > RATE_MAX) return `a limit is ${RATE_MIN} to ${RATE_MAX} a second`;
    if (found[field] > 0) return 'a rule has one limit of messages and one of bytes at the most';
    found[field] = rate;
  }
  return found;
}

function parseRule(text: string): QuotaRule | string {
  // A prefix may have "=", a limit has none.
  const equals = text.lastIndexOf('=');
  if (equals < 0) return 'a rule is such as acme=100msg/s 1MiB/s, acme/orders=10msg/s or *=unlimited';
  const name = parseQuotaName(text.slice(0, equals).trimEnd());
  if (typeof name === 'string') return name;
  const limits = parseQuotaLimits(text.slice(equals + 1));
  return typeof limits === 'string' ? limits : { ...name, ...limits };
}

function decoded(text: string): string | null {
  try {
    return decodeURIComponent(text);
  } catch (error) {
    if (error instanceof URIError) return null;
    throw error;
  }
}
