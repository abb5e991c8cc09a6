/** `broker verify --data-dir`: the embedded store of a broker that does not run, held against its log. Changes nothing. */
import { type SubjectScope, subjectScope } from '../base/subject-space.ts';
import { storeKindOf } from '../storage/bind-store.ts';
import { openDataDirectory, readNodeIdentity } from '../storage/data-directory.ts';
import type { Progress } from '../verify/types.ts';
import { OPEN_MS_MAX } from '../verify/types.ts';
import { VerifyRun } from '../verify/verify-run.ts';
import { allotLimits } from '../workers/raft/raft-settings.ts';
import { readLog } from '../workers/raft/read-log.ts';
import { reportPage, reportsOf } from '../workers/raft/reports.ts';
import { LookingDisk } from './looking-disk.ts';
import { Refusal } from './refusal.ts';
import type { VerifyOfflineRequest } from './types.ts';

export async function verify(request: VerifyOfflineRequest): Promise<Progress> {
  const { config, tenant, prefix, bytesPerSecond, interrupt, onProgress } = request;
  const disk = new LookingDisk();
  const found = readNodeIdentity(disk, config.dataDir);
  if (found === null) {
    throw new Refusal(`${config.dataDir} is no broker's data directory`, 'name that of the broker: --data-dir DIR');
  }
  const { clusterName, nodeId } = found;
  const directory = openDataDirectory(disk, config.dataDir, { clusterName, nodeId, now: Date.now() });
  try {
    const store = storeKindOf(disk, directory.path);
    if (store !== 'embedded') {
      throw new Refusal(
        store === null
          ? `no broker has started in ${directory.path} yet: there is nothing to verify`
          : `the messages of ${directory.path} are in ${store}`,
        store === null ? '' : 'start a broker on it, and verify with --address',
      );
    }
    const machine = readLog(disk, directory.raftPath, directory.node.instanceId, allotLimits(config), 'any member');
    const task = {
      segmentsPath: directory.segmentsPath,
      database: null,
      scope: subjectScope(tenant, prefix),
      bytesPerSecond,
      stoppedAt: machine.time,
      openMsMax: OPEN_MS_MAX,
    };
    const log = {
      page: async (scope: SubjectScope, cursor: number, limit: number) => reportPage(machine, { scope, cursor, limit }),
      now: async (subjects: readonly Uint8Array[]) => reportsOf(machine, subjects),
    };
    const run = new VerifyRun(task, log, onProgress);
    const interrupted = Promise.withResolvers<null>();
    const onAbort = (): void => interrupted.resolve(null);
    interrupt.addEventListener('abort', onAbort, { once: true });
    try {
      const last = await Promise.race([run.ended, interrupted.promise]);
      if (last === null) throw new Refusal('interrupted');
      return last;
    } finally {
      interrupt.removeEventListener('abort', onAbort);
      await run.cancel();
    }
  } finally {
    directory.close();
  }
}
