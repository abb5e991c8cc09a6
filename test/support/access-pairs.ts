/** Who may do what with which subject: the table that is judged by the rules alone and through a real broker. [F13] */

import { createHash } from 'node:crypto';

/** Names and what they may do, as roles and tokens of an access file have it. */
const HOLDERS = `
roles:
  everything: {allow: {publish: [">"], subscribe: [">"], fetch: [">"]}}
  no-hr: {deny: {publish: ["hr.>"], subscribe: ["hr.>"], fetch: ["hr.>"]}}
  logs-reader: {allow: {subscribe: ["logs.>"], fetch: ["logs.>"]}}
tokens:
  - name: plain
    hash: HASH(plain)
    allow: {publish: [orders.eu], subscribe: [orders.eu], fetch: [orders.eu]}
  - name: star
    hash: HASH(star)
    allow: {publish: ["orders.*"], subscribe: ["orders.*"], fetch: ["orders.*"]}
  - name: rest
    hash: HASH(rest)
    allow: {publish: ["orders.>"], subscribe: ["orders.>"], fetch: ["orders.>"]}
  - name: guarded
    hash: HASH(guarded)
    roles: [everything]
    deny: {publish: ["orders.secret"], subscribe: ["orders.secret", "*.private.>"], fetch: ["orders.secret"]}
  - name: middle
    hash: HASH(middle)
    allow: {publish: ["*.eu.>"], subscribe: ["*.eu.>"]}
    deny: {publish: ["*.eu.private"], subscribe: ["*.eu.private.*"]}
  - name: twice
    hash: HASH(twice)
    roles: [everything, no-hr]
  - name: reader
    hash: HASH(reader)
    roles: [logs-reader]
  - name: writer
    hash: HASH(writer)
    allow: {publish: ["logs.>"]}
  - name: shut
    hash: HASH(shut)
    roles: [everything]
    deny: {publish: [">"], subscribe: [">"], fetch: [">"]}
  - name: nothing
    hash: HASH(nothing)
`;

export type PairVerb = 'publish' | 'subscribe' | 'fetch';
export type Pair = readonly [who: string, verb: PairVerb, subject: string, isAllowed: boolean];

export const PAIRS: readonly Pair[] = [
  ['plain', 'publish', 'orders.eu', true],
  ['plain', 'publish', 'orders.eu.west', false],
  ['plain', 'publish', 'orders', false],
  ['plain', 'publish', 'orders.europe', false],
  ['plain', 'fetch', 'orders.us', false],
  ['plain', 'subscribe', 'orders.eu', true],
  ['plain', 'subscribe', 'orders.*', true],
  ['plain', 'subscribe', '>', true],
  ['plain', 'subscribe', 'orders.us', false],
  ['plain', 'subscribe', 'logs.>', false],
  ['star', 'publish', 'orders.eu', true],
  ['star', 'publish', 'orders.eu.west', false],
  ['star', 'publish', 'orders', false],
  ['star', 'fetch', 'orders.secret', true],
  ['star', 'subscribe', 'orders.*', true],
  ['star', 'subscribe', 'orders.>', true],
  ['star', 'subscribe', 'orders.eu.>', false],
  ['star', 'subscribe', '*.*.*', false],
  ['rest', 'publish', 'orders.eu.west.1', true],
  ['rest', 'publish', 'orders', false],
  ['rest', 'publish', 'ordersx.eu', false],
  ['rest', 'publish', 'other.orders.eu', false],
  ['rest', 'fetch', 'orders.eu', true],
  ['rest', 'subscribe', '*.eu', true],
  ['rest', 'subscribe', '*', false],
  ['guarded', 'publish', 'anything.at.all', true],
  ['guarded', 'publish', 'orders.secret', false],
  ['guarded', 'publish', 'orders.secret.more', true],
  ['guarded', 'fetch', 'orders.secret', false],
  ['guarded', 'subscribe', 'orders.secret', false],
  ['guarded', 'subscribe', '>', true],
  ['guarded', 'subscribe', 'orders.*', true],
  ['guarded', 'subscribe', 'hr.private.salaries', false],
  ['guarded', 'subscribe', 'hr.private.>', false],
  ['guarded', 'subscribe', 'hr.private', true],
  ['middle', 'publish', 'orders.eu.west', true],
  ['middle', 'publish', 'orders.us.west', false],
  ['middle', 'publish', 'orders.eu', false],
  ['middle', 'publish', 'hr.eu.private', false],
  ['middle', 'fetch', 'orders.eu.west', false],
  ['middle', 'subscribe', 'hr.eu.private.salaries', false],
  ['middle', 'subscribe', 'hr.eu.private.salaries.2026', true],
  ['middle', 'subscribe', 'hr.eu.private.*', false],
  ['twice', 'publish', 'hr.salaries', false],
  ['twice', 'subscribe', 'hr.>', false],
  ['twice', 'fetch', 'hr', true],
  ['reader', 'publish', 'logs.app', false],
  ['reader', 'fetch', 'logs.app', true],
  ['reader', 'subscribe', 'logs.app', true],
  ['writer', 'publish', 'logs.app', true],
  ['writer', 'subscribe', 'logs.app', false],
  ['writer', 'fetch', 'logs.app', false],
  ['shut', 'publish', 'orders.eu', false],
  ['shut', 'subscribe', '>', false],
  ['nothing', 'publish', 'orders.eu', false],
  ['nothing', 'subscribe', '>', false],
];

export function tokenOf(who: string): string {
  return `token-of-${who}-0123456789`;
}

/** As an access file has it. */
export function hashOf(who: string): string {
  return `sha256:${createHash('sha256').update(tokenOf(who)).digest('hex')}`;
}

/** The access file of the table. */
export function pairsFile(): string {
  return HOLDERS.replace(/HASH\((\w+)\)/g, (_, who: string) => hashOf(who));
}
