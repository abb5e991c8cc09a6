/** `broker restore`: a backup becomes the data directory of a new cluster, by the rule of `cluster recover`: what was given since must not be given again. */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { openRecoveringDirectory } from '../storage/data-directory.ts';
import { type Disk, NodeDisk } from '../storage/disk.ts';
import { allotLimits } from '../workers/raft/raft-settings.ts';
import { makeParents } from './backup.ts';
import { checkFile, copyFile, type Manifest, readManifest, STATE_NAME } from './manifest.ts';
import { runCase } from './recover.ts';
import { checkInterrupt, Refusal } from './refusal.ts';
import { readState } from './state-file.ts';
import type { RecoverySummary, RestoreRequest } from './types.ts';

export async function restore(request: RestoreRequest): Promise<RecoverySummary> {
  const { config, from, apply, interrupt, onProgress } = request;
  const disk = new NodeDisk();
  const manifest = readManifest(disk, from);
  if (manifest.store !== config.store.kind) {
    throw new Refusal(
      `${from} is of a broker with store ${manifest.store}, the configuration says ${config.store.kind}`,
      `add --store ${manifest.store}`,
    );
  }
  await verify(disk, manifest, request);
  const isNew = disk.size(config.dataDir) < 0;
  const directory = openRecoveringDirectory(disk, config.dataDir);
  try {
    const { marker, node, path, segmentsPath } = directory;
    const isOurs = marker?.kind === 'restore' && (marker.replaces === null || marker.replaces === manifest.clusterId);
    if (marker !== null ? !isOurs : node !== null) {
      throw new Refusal(`${path} is a data directory already`, 'restore into an empty or a new one: --data-dir DIR');
    }
    const copy = async (): Promise<void> => {
      rmSync(segmentsPath, { recursive: true, force: true });
      let done = 0;
      for (const file of manifest.files) {
        if (file.path === STATE_NAME) continue;
        const target = join(path, file.path);
        makeParents(disk, path, target);
        const copied = await copyFile(disk, join(from, file.path), target, (bytes) => {
          done += bytes;
          onProgress({ step: 'copying segments', done });
          checkInterrupt(interrupt);
        });
        checkFile(from, file, copied);
        disk.syncDirectory(join(target, '..'));
      }
    };
    const before = marker === null ? manifest : null;
    return await runCase({
      kind: 'restore',
      disk,
      directory,
      request,
      before,
      discarded: null,
      olderState: () => ({ machine: readState(disk, join(from, STATE_NAME), allotLimits(config)), warnings: [] }),
      prepare: copy,
    });
  } finally {
    directory.close();
    if (isNew && !apply) rmSync(directory.path, { recursive: true });
  }
}

/** All of it, before anything is touched. */
async function verify(disk: Disk, manifest: Manifest, { from, interrupt, onProgress }: RestoreRequest): Promise<void> {
  let done = 0;
  for (const file of manifest.files) {
    const path = join(from, file.path);
    if (disk.size(path) < 0) throw new Refusal(`${path} is missing`, 'name another backup');
    const found = await copyFile(disk, path, null, (bytes) => {
      done += bytes;
      onProgress({ step: 'checking the backup', done });
      checkInterrupt(interrupt);
    });
    checkFile(from, file, found);
  }
}
