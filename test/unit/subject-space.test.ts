import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Anonymous, type Caller } from '../../src/access/caller.ts';
import { subjectHash } from '../../src/base/subject.ts';
import {
  innerSubjectFault,
  inSpace,
  isInScope,
  isOfSpace,
  nameOf,
  quotedSubject,
  shownName,
  shownSubject,
  spaceLength,
  spaceOf,
  subjectFields,
  subjectScope,
} from '../../src/base/subject-space.ts';
import { PublishScan, scanPublish } from '../../src/grpc/codec.ts';
import { decodeResumeToken, encodeResumeToken } from '../../src/grpc/resume-token.ts';
import { seenRows, subjectMeant } from '../../src/workers/admin/viewed-subjects.ts';
import { Address } from '../../src/workers/front/address.ts';
import { producerInSpace } from '../../src/workers/front/producer-names.ts';
import { encodePublish, Writer } from '../support/wire.ts';

const LIMITS = { bodyBytes: 1024, headersBytes: 1024, headersCount: 10 };
const ACME = spaceOf('acme');

function callerOf(space: Uint8Array): Caller {
  return Object.assign(Object.create(Anonymous.prototype), { space, tenant: 'acme' });
}

test('a space is the name of the tenant and 0x1F; the tenant "default" has none; what is no name throws', () => {
  assert.equal(Buffer.from(spaceOf('a.B-9_')).toString('latin1'), 'a.B-9_\x1f');
  assert.equal(spaceOf('default').length, 0);
  for (const name of ['', 'a b', 'a\x1f', 'ä', 'x'.repeat(65)]) assert.throws(() => spaceOf(name), RangeError);
});

test('a subject of the broker comes apart into tenant and subject, and what is shown has no 0x1F', () => {
  for (const [inner, tenant, subject] of [
    ['orders', '', 'orders'],
    ['acme\x1forders.eu', 'acme', 'orders.eu'],
    [`${'t'.repeat(64)}\x1fs`, 't'.repeat(64), 's'],
  ] as const) {
    const bytes = Buffer.from(inner);
    assert.deepEqual(nameOf(bytes), { tenant, subject });
    assert.equal(Buffer.from(shownSubject(bytes)).toString(), subject);
    assert.equal(spaceLength(bytes, 0, bytes.length), tenant === '' ? 0 : tenant.length + 1);
    assert.deepEqual(subjectFields(bytes), tenant === '' ? { subject } : { subject, tenant });
    for (const text of [shownName({ tenant, subject }), quotedSubject(bytes)])
      assert.equal(text.includes('\x1f'), false);
    assert.equal(isOfSpace(bytes, spaceOf(tenant || 'default')), true);
    assert.equal(isOfSpace(bytes, spaceOf('other')), false);
    assert.equal(isOfSpace(bytes, new Uint8Array(0)), tenant === '');
  }
  // Nobody is of a space whose name merely begins like his.
  assert.equal(isOfSpace(Buffer.from('acme2\x1fs'), ACME), false);
  assert.equal(isOfSpace(Buffer.from('acm\x1fe\x1fs'), ACME), false);
});

test('inside the broker a subject may have one space, of a valid name, within 255 bytes; a client may have none', () => {
  const fault = (text: string | Buffer) => innerSubjectFault(Buffer.from(text), 0, Buffer.byteLength(text));
  assert.equal(fault('orders'), null);
  assert.equal(fault('acme\x1forders'), null);
  assert.equal(fault(`acme\x1f${'x'.repeat(250)}`), null);
  assert.equal(fault(`acme\x1f${'x'.repeat(251)}`), 'SUBJECT_TOO_LONG');
  for (const text of [
    '\x1forders',
    'a\x1fb\x1fc',
    'a b\x1fc',
    'ä\x1fc',
    `${'x'.repeat(65)}\x1fc`,
    '[\x1fc',
    'a\x01\x1fc',
    '{\x1fc',
  ]) {
    assert.equal(fault(text), 'SUBJECT_CONTROL_CHARACTER', JSON.stringify(text));
  }
  assert.equal(fault('acme\x1f'), 'SUBJECT_EMPTY');
  assert.equal(fault('acme\x1f>'), 'SUBJECT_WILDCARD_TOKEN');
});

test('a scope: of one space, of none, or of all, by what subjects begin with behind their space', () => {
  const all = ['orders', 'other', 'acme\x1forders', 'acme\x1fx', 'ord\x1fx'];
  const found = (tenant: string, prefix: string) => {
    const scope = subjectScope(tenant, prefix);
    return all.filter((name) => isInScope(Buffer.from(name), 0, name.length, scope));
  };
  assert.deepEqual(found('', ''), all);
  assert.deepEqual(found('', 'ord'), ['orders', 'acme\x1forders']);
  assert.deepEqual(found('default', 'o'), ['orders', 'other']);
  assert.deepEqual(found('acme', ''), ['acme\x1forders', 'acme\x1fx']);
  assert.deepEqual(found('acme', 'acme'), []);
});

test('a request gets fields behind it, of which the last ones count; that of a caller without a space stays as it is', () => {
  const address = new Address();
  const scan = new PublishScan();
  const read = (request: Buffer) => {
    const whole = Buffer.concat([request, address.tail]);
    assert.equal(scanPublish(whole, 0, whole.length, scan, LIMITS), null);
    const text = (start: number, end: number): string => whole.toString('latin1', start, end);
    return [text(scan.subjectStart, scan.subjectEnd), text(scan.producerStart, scan.producerEnd), scan.sequence];
  };
  const body = Buffer.from('b');
  const plain = encodePublish({ subject: 'orders', body, producerId: 'p', sequence: 7 });
  assert.equal(address.find(plain, new Anonymous('acme')), null);
  assert.equal(address.tail.length, 0);
  assert.deepEqual(read(plain), ['orders', 'p', 7]);
  assert.equal(address.find(plain, callerOf(ACME)), null);
  assert.deepEqual(read(plain), ['acme\x1forders', 'acme\x1fp', 7]);
  assert.equal(address.subject.toString('latin1'), 'acme\x1forders');
  assert.equal(address.hash, subjectHash(Buffer.from('acme\x1forders'), 0, 11));
  assert.equal(address.find(encodePublish({ subject: 'o', body }), callerOf(ACME)), null);
  assert.deepEqual(read(encodePublish({ subject: 'o', body })), ['acme\x1fo', '', 0]);
  const longest = encodePublish({ subject: 'x'.repeat(190), body, producerId: 'p'.repeat(64), sequence: 1 });
  assert.equal(address.find(longest, callerOf(spaceOf('t'.repeat(64)))), null);
  assert.equal(read(longest)[0], `${'t'.repeat(64)}\x1f${'x'.repeat(190)}`);
  const tooLong = encodePublish({ subject: 'x'.repeat(191), body });
  assert.equal(address.find(tooLong, callerOf(spaceOf('t'.repeat(64)))), 'SUBJECT_TOO_LONG');
  const forged = new Writer().bytes(1, 'acme\x1fo').finish();
  for (const caller of [new Anonymous('default'), callerOf(ACME)]) {
    assert.equal(address.find(Buffer.concat([plain, forged]), caller), 'SUBJECT_CONTROL_CHARACTER');
    assert.equal(
      address.find(Buffer.concat([plain, new Writer().bytes(5, 'acme\x1fp').finish()]), caller),
      'PRODUCER_INVALID',
    );
    assert.equal(address.find(plain.subarray(0, -1), caller), 'MALFORMED_MESSAGE');
  }
  // What is no producer stays, for the shard to refuse.
  for (const producer of ['p'.repeat(65), Buffer.from([0xff])]) {
    const request = Buffer.concat([plain, new Writer().bytes(5, producer).finish()]);
    assert.equal(address.find(request, callerOf(ACME)), null);
    const whole = Buffer.concat([request, address.tail]);
    assert.equal(scanPublish(whole, 0, whole.length, scan, LIMITS), 'PRODUCER_INVALID');
  }
});

test('a producer in a space fits what every version of the log takes, and is nobody else', () => {
  const names = new Set<string>();
  for (const tenant of ['a', 'b', 't'.repeat(64)]) {
    for (const producer of ['p', 'q', 'p'.repeat(62), 'p'.repeat(63), 'p'.repeat(64), 'a\x1fp']) {
      const inner = producerInSpace(spaceOf(tenant), Buffer.from(producer));
      assert.ok(inner.length <= 64);
      names.add(inner.toString('latin1'));
    }
  }
  assert.equal(names.size, 18);
  assert.equal(producerInSpace(spaceOf('a'), Buffer.from('p')).toString('latin1'), 'a\x1fp');
  // Frozen: it is in logs.
  const digest = producerInSpace(spaceOf('acme'), Buffer.from('p'.repeat(64)));
  assert.equal(digest.toString('latin1'), '\x1fJxrfymKPAQbceUeYT8O9a-o9rbB3jM3iRYQLiBTMdWw');
});

test('a resume token reaches no space but that of its caller, and no subject that is too long in it', () => {
  const forge = (name: string) =>
    encodeResumeToken({ patterns: new Set(), next: new Map([[name, 1]]), times: new Map() });
  assert.equal(decodeResumeToken(forge('acme\x1forders'), 10), null);
  assert.equal(decodeResumeToken(forge('x'.repeat(251)), 10, 250), null);
  assert.equal(decodeResumeToken(forge('x'.repeat(250)), 10, 250)?.next.size, 1);
});

test('what operators name: everything, or one space; a tenant names its own only', () => {
  const none = new Uint8Array(0);
  const meant = (space: Uint8Array, tenant: string): string => subjectMeant(space, tenant, 's').toString('latin1');
  assert.deepEqual([meant(none, ''), meant(none, 'acme'), meant(none, 'default')], ['s', 'acme\x1fs', 's']);
  assert.deepEqual([meant(ACME, ''), meant(ACME, 'acme')], ['acme\x1fs', 'acme\x1fs']);
  for (const tenant of ['globex', 'default']) assert.throws(() => meant(ACME, tenant), /names the tenant of others/);
  assert.throws(() => meant(none, 'a b'), { reason: 'TENANT_INVALID' });
  assert.throws(() => subjectMeant(none, '', 'acme\x1fs'), { reason: 'SUBJECT_CONTROL_CHARACTER' });
  assert.throws(() => subjectMeant(ACME, '', 'x'.repeat(251)), { reason: 'SUBJECT_TOO_LONG' });
  const rows = [{ tenant: '' }, { tenant: 'acme' }, { tenant: 'globex' }];
  assert.deepEqual([seenRows(rows, none).length, seenRows(rows, ACME)], [3, [{ tenant: 'acme' }]]);
  assert.equal(inSpace(ACME, Buffer.from('s')).toString('latin1'), 'acme\x1fs');
});
