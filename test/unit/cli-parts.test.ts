import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import { test } from 'node:test';
import { BinaryWriter } from '@bufbuild/protobuf/wire';
import { Metadata, type ServiceError, status } from '@grpc/grpc-js';
import fc from 'fast-check';
import { EXIT, explain } from '../../src/cli/failure.ts';
import { linesOf } from '../../src/cli/lines.ts';
import { messageToJson } from '../../src/cli/message.ts';
import { formatTable, LongTable, Output } from '../../src/cli/output.ts';
import { parseStart } from '../../src/cli/parse.ts';
import { errorOf } from '../../src/client/errors.ts';

async function linesIn(chunks: readonly Uint8Array[], bytesMax?: number): Promise<string[]> {
  async function* source() {
    yield* chunks;
  }
  const lines: string[] = [];
  for await (const line of linesOf(source(), bytesMax)) lines.push(Buffer.from(line).toString('latin1'));
  return lines;
}

test('lines are the same however the input is cut into chunks', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.constantFrom('a', 'é', '\n', '\r')), fc.array(fc.nat(40)), async (letters, cuts) => {
      const bytes = Buffer.from(letters.join(''));
      const expected = bytes.toString('latin1').split('\n');
      if (expected.at(-1) === '') expected.pop();
      const points = [
        0,
        ...cuts.map((cut) => Math.min(cut, bytes.length)).sort((left, right) => left - right),
        bytes.length,
      ];
      const chunks = points.slice(1).map((end, index) => bytes.subarray(points[index], end));
      assert.deepEqual(await linesIn(chunks), expected);
    }),
  );
});

test('a line past the limit is refused instead of collected', async () => {
  await assert.rejects(linesIn([Buffer.from('abc'), Buffer.from('def')], 5), RangeError);
});

const NOW = Date.parse('2026-01-01T00:00:00Z');
for (const [text, expected] of [
  ['new', 'new'],
  ['earliest', 'earliest'],
  ['42', { id: 42 }],
  ['2025-12-31T23:00:00Z', { time: NOW - 3_600_000 }],
  ['2026-01-01T01:00:00+01:00', { time: NOW }],
  ['2026-01-01', { time: NOW }],
  ['15m', { time: NOW - 900_000 }],
] as const) {
  test(`--from ${text}`, () => assert.deepEqual(parseStart(text, NOW), expected));
}

for (const text of [
  ...['', '-1', '1.5', '2026', '2026-13-01', 'NaN', '01/02/2026', '1969-01-01'],
  ...['2026-02-30', '2026-02-31T00:00:00Z', '2025-02-29 12:00', '2026-04-31T00:00:00+02:00'],
]) {
  if (text === '2026') continue; // an id
  test(`--from ${text} is refused`, () => assert.throws(() => parseStart(text, NOW), /--from/));
}

test('any message as JSON gives its bytes back', () => {
  fc.assert(
    fc.property(fc.uint8Array(), fc.uint8Array(), (body, value) => {
      const rest = { expirationSeconds: 0, text: '' };
      const message = {
        ...rest,
        id: 1,
        subject: 's',
        publishedAt: 0,
        headers: [{ key: 'k', value }],
        body: Buffer.from(body),
      };
      const json = JSON.parse(JSON.stringify(messageToJson(message))) as {
        body?: string;
        bodyBase64?: string;
        headers: { value?: string; valueBase64?: string }[];
      };
      const back = (text: string | undefined, base64: string | undefined): Buffer =>
        text === undefined ? Buffer.from(base64 ?? '', 'base64') : Buffer.from(text);
      assert.deepEqual(back(json.body, json.bodyBase64), Buffer.from(body));
      assert.deepEqual(back(json.headers[0]?.value, json.headers[0]?.valueBase64), Buffer.from(value));
    }),
  );
});

test('a table without rows has its headings', () => {
  assert.equal(formatTable([], ['subject', 'head']), 'SUBJECT  HEAD');
});

test('a long table is written in pieces under one heading; columns grow with what they hold', async () => {
  const stream = new PassThrough();
  const table = new LongTable(new Output(stream), ['name', 'count']);
  await table.write();
  table.add({ name: 'a', count: 1 });
  table.add({ name: 'bc', count: 12 });
  await table.write();
  table.add({ name: 'a long one', count: 3 });
  await Promise.all([table.write(), table.write()]);
  assert.deepEqual(String(stream.read()).split('\n'), [
    'NAME  COUNT',
    'a         1',
    'bc       12',
    'a long one      3',
    '',
  ]);
});

function failure(code: status, details: string, reason?: string): ServiceError {
  const metadata = new Metadata();
  if (reason !== undefined) {
    const info = new BinaryWriter().uint32(10).string(reason).uint32(18).string('broker').finish();
    const any = new BinaryWriter()
      .uint32(10)
      .string('type.googleapis.com/google.rpc.ErrorInfo')
      .uint32(18)
      .bytes(info)
      .finish();
    const rpcStatus = new BinaryWriter()
      .uint32(8)
      .int32(code)
      .uint32(18)
      .string(details)
      .uint32(26)
      .bytes(any)
      .finish();
    metadata.set('grpc-status-details-bin', Buffer.from(rpcStatus));
  }
  return Object.assign(new Error(details), { code, details, metadata });
}

test('[P11] an answer of the broker is shown with its reason and what to do next', () => {
  const error = explain(errorOf(failure(status.INVALID_ARGUMENT, 'the id has expired', 'ID_EXPIRED')), 'h:1');
  assert.equal(error.exitCode, EXIT.failed);
  assert.equal(error.message, 'the id has expired (ID_EXPIRED)');
  assert.equal(error.next, 'skip it');
});

test('UNAVAILABLE from a broker is an answer, without its word it is nobody there', () => {
  assert.equal(explain(errorOf(failure(status.UNAVAILABLE, 'starting', 'NOT_READY')), 'h:1').exitCode, EXIT.failed);
  assert.equal(explain(errorOf(failure(status.UNAVAILABLE, 'refused')), 'h:1').exitCode, EXIT.unreachable);
});

test('[P11] a call that the address does not have, such as that of an operator through Envoy, says where to ask', () => {
  const error = explain(errorOf(failure(status.UNIMPLEMENTED, '')), 'h:1');
  assert.equal(error.exitCode, EXIT.failed);
  assert.equal(error.message, 'h:1 does not offer this call (UNIMPLEMENTED)');
  assert.match(error.next, /a node's own address with --address/);
});

test('error details that cannot be read are as none', () => {
  fc.assert(
    fc.property(fc.uint8Array(), (bytes) => {
      const metadata = new Metadata();
      metadata.set('grpc-status-details-bin', Buffer.from(bytes));
      const { reason } = errorOf({ code: status.UNKNOWN, details: 'd', metadata });
      assert.ok(reason === null || typeof reason === 'string');
    }),
  );
});
