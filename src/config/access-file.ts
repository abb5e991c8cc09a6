/** The access file: who may do what. YAML or JSON, checked here; what it means is in src/access. */
import { dirname, resolve } from 'node:path';
import type { ParsedNode } from 'yaml';
import { z } from 'zod';
import type { AccessDocument, Grants, Holder, JwtKey, JwtRow, SubjectLists } from '../access/document.ts';
import { Policy } from '../access/policy.ts';
import { readSmallFile } from '../base/small-file.ts';
import { type AccessFile, FILE, HOLDER, ISSUER, LISTS, NAME_RULE } from './access-file-schema.ts';
import { ConfigError } from './config-error.ts';
import { schemaText } from './document.ts';
import { isSymmetric, parseJwtKeys } from './jwt-keys.ts';
import { nearest } from './names.ts';
import { parseDuration } from './units.ts';
import { yaml } from './yaml.ts';

/** Largest file that is read. */
export const ACCESS_BYTES_MAX = 4 * 1024 * 1024;
const ROLES_MAX = 1_000;
/** More are not told at a time. */
const PROBLEMS_MAX = 20;

/** `problems`: one line each, with where in the file. Never what a token is. */
export type ParsedAccess = { readonly document: AccessDocument } | { readonly problems: readonly string[] };

/**
 * `place` stands in front of the number of the line in each problem: the path of the file. `readKeys`: the text of a file that the access file names,
 * as it names it; throws an Error.
 */
export function parseAccessFile(text: string, place: string, readKeys: (file: string) => string): ParsedAccess {
  if (text.length > ACCESS_BYTES_MAX) return { problems: [`${place}: larger than ${ACCESS_BYTES_MAX} bytes`] };
  const { isMap, LineCounter, parseDocument } = yaml();
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, uniqueKeys: true, prettyErrors: false });
  const at = (offset: number): string => `${place}:${lines.linePos(offset).line}`;
  const [syntax] = document.errors;
  // Behind a colon some messages quote the file.
  if (syntax !== undefined)
    return { problems: [`${at(syntax.pos[0])}: not valid YAML: ${syntax.message.split(/:|\n/)[0]}`] };
  if (!isMap(document.contents))
    return { problems: [`${place}: must be a mapping with roles, tokens, jwt, certificates or anonymous`] };
  let value: unknown;
  try {
    value = document.toJS({ maxAliasCount: 100 });
  } catch (error) {
    // A reference to nothing, or so many that the file is a trap.
    return { problems: [`${place}: not valid YAML: ${error instanceof Error ? error.message.split(/:|\n/)[0] : ''}`] };
  }
  const { contents } = document;
  const where = (path: readonly PropertyKey[]): string => at(offsetOf(contents, path));
  const parsed = FILE.safeParse(value);
  if (!parsed.success) {
    const problems = parsed.error.issues.flatMap((issue) => linesOf(issue, where));
    return { problems: problems.slice(0, PROBLEMS_MAX) };
  }
  const problems = mistakes(parsed.data, where);
  const issuers = parsed.data.jwt.map((row, i) => toIssuer(row, i, where, readKeys));
  for (const issuer of issuers) if ('problem' in issuer) problems.push(issuer.problem);
  if (problems.length > 0) return { problems: problems.slice(0, PROBLEMS_MAX) };
  return {
    document: documentOf(
      parsed.data,
      issuers.filter((issuer) => 'keys' in issuer),
    ),
  };
}

export interface LoadedAccess {
  readonly policy: Policy;
  /** All that were read for it. */
  readonly files: readonly string[];
}

/**
 * Reads a file and the files of keys that it names. Throws an Error that says what is wrong, one line for each problem. `onRead`: each file, before it
 * is read, also if that fails: whoever watches them has to know them then too.
 */
export function loadAccessFile(path: string, onRead?: (file: string) => void): LoadedAccess {
  const files: string[] = [];
  const read = (file: string, what: string): string => {
    files.push(file);
    onRead?.(file);
    return readCapped(file, what);
  };
  const text = read(path, 'access.file ');
  const parsed = parseAccessFile(text, path, (file) => read(resolve(dirname(path), file), ''));
  if ('problems' in parsed) throw new ConfigError(parsed.problems);
  return { policy: new Policy(parsed.document), files };
}

function readCapped(path: string, what: string): string {
  try {
    return readSmallFile(path, ACCESS_BYTES_MAX).text;
  } catch (error) {
    throw new Error(`${what}${path}: cannot be read: ${(error as Error).message}`, { cause: error });
  }
}

/** JSON schema of the file, for editors. */
export function accessJsonSchema(): string {
  const schema = z.toJSONSchema(FILE, { io: 'input', unrepresentable: 'any' });
  return schemaText({ title: 'Access file of the broker', ...schema });
}

/** What single values do not tell. */
function mistakes(file: AccessFile, where: (path: readonly PropertyKey[]) => string): string[] {
  const problems: string[] = [];
  const roles = Object.keys(file.roles);
  if (roles.length > ROLES_MAX) problems.push(`${where(['roles'])}: roles: there are more than ${ROLES_MAX}`);
  const holders = [
    ...file.tokens.map((row, i) => ({ row, path: ['tokens', i] })),
    ...file.certificates.map((row, i) => ({ row, path: ['certificates', i] })),
    ...file.jwt.map((row, i) => ({ row, path: ['jwt', i] })),
    ...(file.anonymous === undefined ? [] : [{ row: file.anonymous, path: ['anonymous'] }]),
  ];
  for (const { row, path } of holders) {
    for (const [i, role] of row.roles.entries()) {
      if (roles.includes(role)) continue;
      const guess = nearest(role, roles);
      const hint = guess === null ? '' : `; did you mean ${guess}?`;
      problems.push(`${where([...path, 'roles', i])}: ${path.join('.')}.roles: there is no role ${show(role)}${hint}`);
    }
  }
  problems.push(...twins(file.tokens, 'tokens', 'name', where), ...twins(file.tokens, 'tokens', 'hash', where));
  problems.push(...twins(file.certificates, 'certificates', 'name', where), ...twins(file.jwt, 'jwt', 'name', where));
  return problems;
}

function twins<Key extends string>(
  rows: readonly Readonly<Record<Key, string>>[],
  section: string,
  key: Key,
  where: (path: readonly PropertyKey[]) => string,
): string[] {
  const seen = new Set<string>();
  return rows.flatMap((row, i) => {
    const isTwin = seen.has(row[key]);
    seen.add(row[key]);
    return isTwin ? [`${where([section, i, key])}: ${section}.${i}.${key}: another one has the same`] : [];
  });
}

function linesOf(issue: z.core.$ZodIssue, where: (path: readonly PropertyKey[]) => string): string[] {
  const key = issue.path.join('.');
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map((name) => {
      const path = [...issue.path, name];
      const guess = nearest(name, knownKeys(issue.path));
      return `${where(path)}: unknown key ${show(path.join('.'))}${guess === null ? '' : `: did you mean ${guess}?`}`;
    });
  }
  if (issue.code === 'invalid_key') return [`${where(issue.path)}: ${key}: a name ${NAME_RULE}`];
  return [`${where(issue.path)}: ${key === '' ? 'the file' : key}: ${issue.message.replace(/^Invalid input: /, '')}`];
}

function knownKeys(path: readonly PropertyKey[]): string[] {
  const side = path.at(-1);
  if (side === 'allow' || side === 'deny') return Object.keys(LISTS.def.innerType.shape);
  if (path.length === 0) return Object.keys(FILE.shape);
  const own = { tokens: ['name', 'hash', 'expires'], jwt: Object.keys(ISSUER), certificates: ['name'] };
  return [...Object.keys(HOLDER), ...(own[path[0] as keyof typeof own] ?? [])];
}

/** Where the value of a path stands, or the nearest above it that is there. */
function offsetOf(contents: ParsedNode, path: readonly PropertyKey[]): number {
  const { isMap, isNode } = yaml();
  for (let length = path.length; length > 0; length--) {
    const node: unknown = isMap(contents) ? contents.getIn(path.slice(0, length), true) : null;
    if (isNode(node) && node.range !== undefined && node.range !== null) return node.range[0];
  }
  return contents.range[0];
}

const SHOWN_MAX = 80;

function show(text: string): string {
  return JSON.stringify(text.length > SHOWN_MAX ? `${text.slice(0, SHOWN_MAX)}…` : text);
}

/** `problem`: one line. */
function toIssuer(
  row: AccessFile['jwt'][number],
  i: number,
  where: (path: readonly PropertyKey[]) => string,
  readKeys: (file: string) => string,
): JwtRow | { readonly problem: string } {
  const problem = (key: string, what: string) => ({ problem: `${where(['jwt', i, key])}: jwt.${i}.${key}: ${what}` });
  let keys: readonly JwtKey[] | string;
  try {
    keys = parseJwtKeys(readKeys(row.keys));
  } catch (error) {
    return problem('keys', (error as Error).message);
  }
  if (typeof keys === 'string') return problem('keys', `${show(row.keys)}: ${keys}`);
  const possible = new Set(keys.flatMap((key) => key.algorithms));
  const algorithms = row.algorithms ?? [...possible].filter((algorithm) => !isSymmetric(algorithm));
  if (algorithms.length === 0)
    return problem('keys', 'secrets sign only with algorithms that are named: add algorithms');
  const lacking = algorithms.find((algorithm) => !possible.has(algorithm));
  if (lacking !== undefined) return problem('algorithms', `no key of ${show(row.keys)} signs with ${lacking}`);
  if (algorithms.some(isSymmetric) && !algorithms.every(isSymmetric))
    return problem(
      'algorithms',
      'those with a secret (HS…) and those with public keys do not go together: make two entries',
    );
  const { name, tenant, roles } = row.claims;
  return {
    ...toHolder(row),
    name: row.name,
    issuer: row.issuer,
    audience: [row.audience].flat(),
    keys,
    algorithms,
    clockToleranceMs: parseDuration(row.clock_tolerance) ?? 0,
    claims: { name, tenant: tenant ?? null, roles: roles ?? null },
  };
}

function documentOf(file: AccessFile, jwt: readonly JwtRow[]): AccessDocument {
  return {
    roles: new Map(Object.entries(file.roles).map(([role, given]) => [role, toGrants(given)])),
    tokens: file.tokens.map((row) => ({
      ...toHolder(row),
      name: row.name,
      hash: row.hash.slice('sha256:'.length),
      expiresAt: row.expires === undefined ? Number.POSITIVE_INFINITY : Date.parse(row.expires),
    })),
    certificates: file.certificates.map((row) => ({ ...toHolder(row), name: row.name })),
    jwt,
    anonymous: file.anonymous === undefined ? null : toHolder(file.anonymous),
  };
}

function toHolder(row: Pick<AccessFile['tokens'][number], keyof Holder>): Holder {
  return { tenant: row.tenant, roles: row.roles, ...toGrants(row) };
}

function toGrants({ allow, deny, observe, admin }: Grants): Grants {
  const of = ({ publish, subscribe, fetch }: SubjectLists): SubjectLists => ({ publish, subscribe, fetch });
  return { allow: of(allow), deny: of(deny), observe, admin };
}
