/** docs/record-format.md shows the bytes that the code writes: a format that changes fails here. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { BatchOffset } from '../../src/batch/batch-format.ts';
import { BatchView } from '../../src/batch/batch-view.ts';
import { encodeGroup, groupBytes } from '../../src/storage/embedded/group-encoder.ts';
import { decodeGroupHeader, encodeSegmentHeader, segmentId } from '../../src/storage/embedded/segment-format.ts';
import { decodeSidecarHeader, SidecarBuilder, sidecarBodyIsGood } from '../../src/storage/embedded/sidecar.ts';
import { checkOf, EntryKind } from '../../src/storage/embedded/slot-index.ts';
import { ROOT } from '../support/source-tree.ts';
import { dataBatch, type Message, plain, subjectRef } from './batch-support.ts';

const NONCE = 0x1234_5678_9abc;
const TIME = 1_700_000_000_000;
const ORDERS = subjectRef('orders');
const FIRST: Message = {
  body: Buffer.from('hi'),
  headers: [{ key: 'k', value: Buffer.from('v') }],
  expirationSeconds: 60,
};
const BATCH = dataBatch(ORDERS, [FIRST, plain('bye')], { base: 41, publishedAt: TIME });

/** The bytes of an example in the document. */
function example(name: string): Buffer {
  const document = readFileSync(join(ROOT, 'docs/record-format.md'), 'utf8');
  const found = new RegExp(`<!-- example: ${name} -->\\n\`\`\`\\n([^\`]+)\`\`\``).exec(document)?.[1];
  assert.ok(found !== undefined, `the document has an example ${name}`);
  const lines = found.trim().split('\n');
  for (const [i, line] of lines.entries()) {
    assert.ok(line.startsWith((i * 16).toString(16).padStart(4, '0')), line);
  }
  return Buffer.from(
    lines
      .map((line) => line.slice(6))
      .join('')
      .replaceAll(' ', ''),
    'hex',
  );
}

test('the batch in docs/record-format.md is what is written, and is read', () => {
  assert.deepEqual(BATCH.bytes, example('batch'));
  const view = new BatchView();
  assert.equal(view.wrap(example('batch'), 0), null);
  assert.ok(view.verifyBody() && view.verifyRecords());
  assert.deepEqual([view.base, view.count, view.publishedAt, view.expiresMax], [41, 2, TIME, 0]);
});

test('the segment header, group and sidecar in docs/record-format.md are what is written', () => {
  const header = Buffer.alloc(512);
  const previous = encodeSegmentHeader(header, { lane: 2, number: 7, nonce: NONCE, createdAt: TIME });
  assert.deepEqual(header.subarray(0, 48), example('segment'));
  const group = Buffer.alloc(groupBytes([BATCH]));
  const offsets: number[] = [];
  const chain = encodeGroup(group, 0, group.length, [BATCH], { position: 512, nonce: NONCE, previous }, offsets);
  assert.deepEqual(group.subarray(0, 0x70), example('group'));
  assert.deepEqual(offsets, [0x70]);
  assert.equal(decodeGroupHeader(group, 0, 512, NONCE)?.batches, 1);
  const segment = segmentId(2, 7);
  const builder = new SidecarBuilder();
  builder.add(
    ORDERS.bytes,
    0,
    ORDERS.bytes.length,
    ORDERS.hash,
    {
      base: 41,
      publishedAt: TIME,
      count: 2,
      segment,
      kind: EntryKind.DATA,
      offset: 512 + 0x70,
      length: BATCH.bytes.length,
      check: checkOf(BATCH.bytes.readUInt32LE(BatchOffset.HEADER_CRC)),
    },
    0,
  );
  const bytes = builder.encode(builder.summary({ segment, nonce: NONCE, length: 1024, chain, damaged: 0 }));
  assert.deepEqual(bytes, example('sidecar'));
  const decoded = decodeSidecarHeader(bytes);
  assert.ok(decoded !== null && sidecarBodyIsGood(decoded, bytes));
});
