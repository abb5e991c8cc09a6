/**
 * Spaces of tenants. Inside the broker a subject of a tenant is NAME 0x1F SUBJECT: in the log, in stores, between threads and between nodes. The tenant
 * `default` has no space, and its subjects stand for themselves. A subject that a client sends has no 0x1F, so none reaches into the space of another.
 * Frozen: part of the formats (docs/record-format.md).
 */
import type { Reason } from './errors.ts';
import { SUBJECT_BYTES_MAX, slotOfHash, subjectFault, subjectHash } from './subject.ts';

/** The unit separator of ASCII: ends a space. */
export const SPACE_END = 0x1f;
/** The tenant whose space is empty. */
export const TENANT_DEFAULT = 'default';
/** Of whoever has none, such as the tenant `default`. */
export const NO_SPACE = new Uint8Array(0);
const TENANT_BYTES_MAX = 64;
const TENANT = /^[A-Za-z0-9._-]{1,64}$/;

export function isTenant(name: string): boolean {
  return TENANT.test(name);
}

/** What stands in front of the subjects of a tenant; empty for the tenant `default`. Throws a RangeError for what is no name of a tenant. */
export function spaceOf(tenant: string): Uint8Array {
  if (!isTenant(tenant)) throw new RangeError(`no name of a tenant: ${JSON.stringify(tenant)}`);
  return tenant === TENANT_DEFAULT ? NO_SPACE : Buffer.from(`${tenant}${String.fromCharCode(SPACE_END)}`);
}

/** Bytes of the space in front of the subject bytes[start, end) of the broker; 0 if it has none. */
export function spaceLength(bytes: Uint8Array, start: number, end: number): number {
  const limit = Math.min(end, start + TENANT_BYTES_MAX + 1);
  for (let i = start; i < limit; i++) {
    if (bytes[i] === SPACE_END) return i + 1 - start;
  }
  return 0;
}

/** The subject as its clients call it: a view of the same memory. */
export function shownSubject(subject: Uint8Array): Uint8Array {
  const length = spaceLength(subject, 0, subject.length);
  return length === 0 ? subject : subject.subarray(length);
}

/** Whether the subject is one of exactly that space. */
export function isOfSpace(subject: Uint8Array, space: Uint8Array): boolean {
  const end = subject.length;
  return spaceLength(subject, 0, end) === space.length && beginsWith(subject, 0, end, space);
}

/** Which subjects of the broker are meant. Travels between threads. */
export interface SubjectScope {
  /** Null: of all spaces; empty: those that have none. */
  readonly space: Uint8Array | null;
  /** What they begin with, behind their space. */
  readonly prefix: Uint8Array;
}

/** Subjects that begin with `prefix`, of a tenant, or of all if it is ''. Throws like `spaceOf`. */
export function subjectScope(tenant: string, prefix: string): SubjectScope {
  return { space: tenant === '' ? null : spaceOf(tenant), prefix: Buffer.from(prefix) };
}

export const ALL_SUBJECTS: SubjectScope = { space: null, prefix: new Uint8Array(0) };

/** Whether bytes[start, end), a subject of the broker, is meant. */
export function isInScope(bytes: Uint8Array, start: number, end: number, { space, prefix }: SubjectScope): boolean {
  if (space === null && prefix.length === 0) return true;
  const length = spaceLength(bytes, start, end);
  if (space !== null && (length !== space.length || !beginsWith(bytes, start, end, space))) return false;
  return beginsWith(bytes, start + length, end, prefix);
}

function beginsWith(bytes: Uint8Array, start: number, end: number, prefix: Uint8Array): boolean {
  if (end - start < prefix.length) return false;
  for (let i = 0; i < prefix.length; i++) {
    if (bytes[start + i] !== prefix[i]) return false;
  }
  return true;
}

/** A subject of the broker for people. `tenant` is '' if it has no space. */
export interface SubjectName {
  readonly tenant: string;
  readonly subject: string;
}

export function nameOf(subject: Uint8Array): SubjectName {
  const length = spaceLength(subject, 0, subject.length);
  const text = (start: number, end: number): string => Buffer.from(subject.subarray(start, end)).toString();
  return { tenant: length === 0 ? '' : text(0, length - 1), subject: text(length, subject.length) };
}

/** The same as fields of a line of the log: without `tenant` if there is none. */
export function subjectFields(subject: Uint8Array): { readonly subject: string; readonly tenant?: string } {
  const { tenant, subject: name } = nameOf(subject);
  return tenant === '' ? { subject: name } : { subject: name, tenant };
}

/** The same in few columns. */
export function shownName({ tenant, subject }: SubjectName): string {
  return tenant === '' ? subject : `${subject} (${tenant})`;
}

/** The same as a part of a sentence. */
export function quotedSubject(subject: Uint8Array): string {
  const { tenant, subject: name } = nameOf(subject);
  return tenant === '' ? `"${name}"` : `"${name}" of tenant ${tenant}`;
}

/** The subject in a space. */
export function inSpace(space: Uint8Array, subject: Uint8Array): Buffer {
  return Buffer.concat([space, subject]);
}

/** `tenant`: in whose space it is, '' for none. */
export function slotOfSubject(subject: string, tenant = ''): number {
  const space = tenant === '' ? NO_SPACE : spaceOf(tenant);
  const bytes = inSpace(space, Buffer.from(subject));
  return slotOfHash(subjectHash(bytes, 0, bytes.length));
}

/** The rules for a subject of the broker: those for a subject of a client behind at most one space. For what other nodes send. */
export function innerSubjectFault(bytes: Uint8Array, start: number, end: number): Reason | null {
  const length = spaceLength(bytes, start, end);
  if (end - start > SUBJECT_BYTES_MAX) return 'SUBJECT_TOO_LONG';
  for (let i = start; i < start + length - 1; i++) {
    if (!isTenantByte(bytes[i] as number)) return 'SUBJECT_CONTROL_CHARACTER';
  }
  return length === 1 ? 'SUBJECT_CONTROL_CHARACTER' : subjectFault(bytes, start + length, end);
}

function isTenantByte(byte: number): boolean {
  const letter = byte | 0x20;
  const isLetter = letter >= 0x61 && letter <= 0x7a;
  return isLetter || (byte >= 0x30 && byte <= 0x39) || byte === 0x2d || byte === 0x2e || byte === 0x5f;
}
