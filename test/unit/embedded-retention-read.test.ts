/** A read that is on its way while retention drops the segment that it reads. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { deleteSegments } from '../../src/storage/embedded/retention.ts';
import { dataBatch, type Message, subjectRef } from './batch-support.ts';
import { MemoryDisk } from './embedded-memory-disk.ts';
import { EmbeddedRig } from './embedded-rig.ts';

const A = subjectRef('alpha');
const B = subjectRef('beta');
const large = (): Message[] => [{ body: Buffer.alloc(40_000, 7), headers: [], expirationSeconds: 0 }];

test('a read of several places that has begun ends well when its segment is dropped and deleted meanwhile', async () => {
  const disk = new MemoryDisk();
  const rig = new EmbeddedRig('/', { disk, cacheBytes: 0, now: () => 1, segmentBytes: 300_000 });
  const store = rig.open();
  // Of two subjects in turn: batches of one do not lie side by side.
  for (let id = 1; store.sealedSegments().length === 0; id++) {
    await store.append([dataBatch(A, large(), { base: id })]);
    await store.append([dataBatch(B, large(), { base: id })]);
  }
  const [sealed] = store.sealedSegments();
  assert(sealed !== undefined);
  const segments = new Set([sealed.segment]);
  const { promise, resolve } = Promise.withResolvers<void>();
  disk.gate = (operation) => (operation === 'read' ? promise : Promise.resolve());
  const read = store.read(A, 1, 3, 1 << 20);
  assert(read instanceof Promise);
  // What ReleaseJobs and RetentionKeeper do once the log has trimmed the subjects.
  store.releaseSegments(segments);
  deleteSegments(disk, '/segments', segments);
  resolve();
  const { items } = await read;
  assert.deepEqual(
    items.map(({ kind, from }) => `${kind} ${from}`),
    ['data 1'],
  );
  assert.deepEqual(rig.damage, []);
});
