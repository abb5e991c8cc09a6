/** `broker backup`: what the log of a stopped broker says, and with the embedded store its segments, in a folder. */
import { globSync, statSync } from 'node:fs';
import { dirname, join, relative, sep } from 'node:path';
import { storeKindOf } from '../storage/bind-store.ts';
import { openDataDirectory, readNodeIdentity } from '../storage/data-directory.ts';
import { type Disk, NodeDisk } from '../storage/disk.ts';
import { sealLanes } from '../storage/embedded/seal-lanes.ts';
import { allotLimits } from '../workers/raft/raft-settings.ts';
import { readLog } from '../workers/raft/read-log.ts';
import { type BackupFile, copyFile, SEGMENTS_NAME, STATE_NAME, writeManifest } from './manifest.ts';
import { checkInterrupt, Refusal } from './refusal.ts';
import { writeState } from './state-file.ts';
import type { BackupRequest, BackupSummary } from './types.ts';

export async function backup(request: BackupRequest): Promise<BackupSummary> {
  const { config, to, interrupt, onProgress } = request;
  const disk = new NodeDisk();
  const found = readNodeIdentity(disk, config.dataDir);
  if (found === null)
    throw new Refusal(`${config.dataDir} is no broker's data directory`, 'name that of the broker: --data-dir DIR');
  const { clusterName, nodeId, clusterId } = found;
  const directory = openDataDirectory(disk, config.dataDir, { clusterName, nodeId, now: Date.now() });
  try {
    const store = storeKindOf(disk, directory.path);
    if (store === null) throw new Refusal(`no broker has started in ${directory.path} yet: there is nothing to copy`);
    const machine = readLog(disk, directory.raftPath, directory.node.instanceId, allotLimits(config), 'any member');
    makeFolder(disk, to);
    const files: BackupFile[] = [{ path: STATE_NAME, ...writeState(disk, join(to, STATE_NAME), machine) }];
    if (store === 'embedded') {
      sealLanes(disk, directory.segmentsPath);
      let done = 0;
      const onBytes = (bytes: number): void => {
        done += bytes;
        onProgress({ step: 'copying segments', done });
        checkInterrupt(interrupt);
      };
      for (const path of filesIn(directory.segmentsPath)) {
        const target = join(to, SEGMENTS_NAME, path);
        makeParents(disk, to, target);
        const copied = await copyFile(disk, join(directory.segmentsPath, path), target, onBytes);
        files.push({ path: `${SEGMENTS_NAME}/${path.split(sep).join('/')}`, ...copied });
      }
    }
    for (const folder of new Set(files.map(({ path }) => dirname(join(to, path))))) disk.syncDirectory(folder);
    checkInterrupt(interrupt);
    const { subjects, producers } = machine.counts();
    const [logIndex, logTime] = [machine.index, machine.time];
    const createdAt = new Date().toISOString();
    writeManifest(disk, to, {
      createdAt,
      clusterId,
      clusterName,
      nodeId,
      store,
      logIndex,
      logTime,
      subjects,
      producers,
      files,
    });
    const bytes = files.reduce((sum, file) => sum + file.bytes, 0);
    return { store, to, files: files.length, bytes, subjects, producers, logIndex, logTime };
  } finally {
    directory.close();
  }
}

/** Relative to `folder`; symbolic links and the like are none of ours. */
function filesIn(folder: string): string[] {
  const found = globSync('**/*', { cwd: folder }).filter((path) => statSync(join(folder, path)).isFile());
  return found.map((path) => relative('.', path)).sort();
}

/** Never into what is there already: a backup that was cut off is told from a whole one by its manifest, not by what it wrote over. */
function makeFolder(disk: Disk, to: string): void {
  if (disk.size(to) < 0) makeParents(disk, dirname(to), join(to, '.'));
  if (disk.size(to) < 0) disk.mkdir(to);
  const [name] = disk.list(to);
  if (name !== undefined)
    throw new Refusal(`${to} is not empty (it has ${name})`, 'name a folder of its own for each backup: --to FOLDER');
}

/** The folders of `path` below `root`, and `root` itself. */
export function makeParents(disk: Disk, root: string, path: string): void {
  const parent = dirname(path);
  if (disk.size(parent) >= 0) return;
  if (parent !== root && dirname(parent) !== parent) makeParents(disk, root, parent);
  disk.mkdir(parent);
}
