/** The contract of a MessageStore, kept by the embedded store. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { EmbeddedStore } from '../../src/storage/embedded/embedded-store.ts';
import type { SealedBatch } from '../../src/storage/store.ts';
import { temporaryFolder } from '../support/temporary.ts';
import { dataBatch, plain, subjectRef } from '../unit/batch-support.ts';
import { EmbeddedRig } from '../unit/embedded-rig.ts';
import { messageStoreSuite, type StoreUnderTest } from './message-store.ts';

/** 100,000 are written once. */
const FEW_SUBJECTS = 20_000;

function under(rig: EmbeddedRig, reopen: () => Promise<EmbeddedStore>): StoreUnderTest {
  const damage = async (batch: SealedBatch, offset: number): Promise<EmbeddedStore> => {
    await rig.close();
    rig.changeByte(batch.bytes, offset);
    return await reopen();
  };
  return { store: rig.open(), reopen, damage };
}

messageStoreSuite('embedded', async (t) => {
  const rig = new EmbeddedRig(temporaryFolder(t));
  t.after(() => rig.close());
  return under(rig, () => rig.reopen());
});

messageStoreSuite(
  'embedded, small segments, nothing cached',
  async (t) => {
    const rig = new EmbeddedRig(temporaryFolder(t), { segmentBytes: 16 * 1024, cacheBytes: 0 });
    t.after(() => rig.close());
    return under(rig, () => rig.reopen());
  },
  FEW_SUBJECTS,
);

messageStoreSuite(
  'embedded, killed instead of closed',
  async (t) => {
    const rig = new EmbeddedRig(temporaryFolder(t), { segmentBytes: 64 * 1024 });
    t.after(() => rig.close());
    return under(rig, () => rig.reopenAfterKill());
  },
  FEW_SUBJECTS,
);

test('embedded: a group is not visible before its append resolves', async (t) => {
  const rig = new EmbeddedRig(temporaryFolder(t));
  t.after(() => rig.close());
  const store = rig.open();
  const subject = subjectRef('visible');
  const append = store.append([dataBatch(subject, [plain('m')])]);
  assert.deepEqual((await store.read(subject, 1, 1, 1000)).items, []);
  assert.equal(store.lookup(subject, 1), 'absent');
  await append;
  assert.equal((await store.read(subject, 1, 1, 1000)).items.length, 1);
});
