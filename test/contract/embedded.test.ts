/** The contract of a MessageStore, kept by the embedded store. */
import { temporaryFolder } from '../support/temporary.ts';
import { EmbeddedRig } from '../unit/embedded-rig.ts';
import { messageStoreSuite } from './message-store.ts';

messageStoreSuite('embedded', async (t) => {
  const rig = new EmbeddedRig(temporaryFolder(t));
  t.after(() => rig.close());
  return { store: rig.open(), reopen: () => rig.reopen() };
});

messageStoreSuite('embedded, small segments, nothing cached', async (t) => {
  const rig = new EmbeddedRig(temporaryFolder(t), { segmentBytes: 16 * 1024, cacheBytes: 0 });
  t.after(() => rig.close());
  return { store: rig.open(), reopen: () => rig.reopen() };
});

messageStoreSuite('embedded, killed instead of closed', async (t) => {
  const rig = new EmbeddedRig(temporaryFolder(t), { segmentBytes: 64 * 1024 });
  t.after(() => rig.close());
  return { store: rig.open(), reopen: () => rig.reopenAfterKill() };
});
