/**
 * A process that appends to a Raft log and says what it acknowledged; the fault tests kill it, cut its power and lie to it.
 *
 *   node wal-child.ts '{"dir": …, "appends": 20, "bytes": 100, …}'
 *
 * Prints one line per acknowledged entry: `ack INDEX`, every line with the time at its end (process.hrtime). An error ends the process as a thread entry does it: at once, code 70, one line on stderr.
 */
import { writeSync } from 'node:fs';
import { armFailpoints } from '../../src/base/failpoint.ts';
import { DiskFull, NodeDisk } from '../../src/storage/disk.ts';
import { RaftWal } from '../../src/storage/raft-wal/raft-wal.ts';
import { entry } from '../unit/raft-wal-support.ts';

export interface ChildOptions {
  readonly dir: string;
  readonly appends: number;
  readonly bytes: number;
  readonly segmentBytes?: number;
  readonly preallocateBytes?: number;
  readonly reserveBytes?: number;
  /** A snapshot after every so many appends; 0 for none. */
  readonly snapshotEvery?: number;
  /** Appends per sync; above 1 no votes are written between. */
  readonly group?: number;
  /** How to sync before an acknowledgement. `off` is the control group: it must lose data. */
  readonly sync: 'sync' | 'async' | 'off';
  readonly failpoints?: string;
  /** After a DiskFull: give the reserve up and append again, once. */
  readonly useReserve?: boolean;
  /** Say `done` and stay, so that the power can be cut while the process is alive. */
  readonly stay?: boolean;
}

/** Synchronous, so that nothing said is still in a buffer when the process dies. */
function say(line: string): void {
  writeSync(1, `${line} @${process.hrtime.bigint()}\n`);
}

async function run(options: ChildOptions): Promise<void> {
  const disk = options.sync === 'off' ? withoutSync() : new NodeDisk();
  const { wal, state } = RaftWal.open(disk, options.dir, {
    segmentBytes: options.segmentBytes ?? 64 * 1024,
    preallocateBytes: options.preallocateBytes ?? 8192,
    reserveBytes: options.reserveBytes ?? 0,
  });
  say('open');
  armFailpoints(options.failpoints ?? '');
  const group = options.group ?? 1;
  let term = state.hardState.term + 1;
  for (let index = wal.lastIndex + 1, end = index + options.appends; index < end; index++) {
    // A vote is spoken of as well: a term may get only one.
    if (index % 5 === 0 && group === 1) {
      term += 1;
      wal.append([], { term, vote: `candidate-${index}`, commit: wal.lastIndex });
      await makeDurable(wal, options);
      say(`vote ${term} candidate-${index}`);
    }
    appendOne(wal, index, options, term);
    if (index % group !== 0) continue;
    await makeDurable(wal, options);
    say(`ack ${index}`);
    if (options.snapshotEvery && index % options.snapshotEvery === 0) {
      const writer = wal.beginSnapshot({ index, term: 1, meta: new Uint8Array(0) });
      writer.write(Buffer.alloc(options.bytes, 1));
      await writer.finish('local');
      say(`snapshot ${index}`);
    }
  }
  say('done');
  if (options.stay) setInterval(() => undefined, 1000);
  else wal.close();
}

function appendOne(wal: RaftWal, index: number, options: ChildOptions, term: number): void {
  const entries = [entry(index, options.bytes)];
  const hardState = { term, vote: `candidate-${index - (index % 5)}`, commit: index - 1 };
  try {
    wal.append(entries, hardState);
  } catch (error) {
    if (!(error instanceof DiskFull) || !options.useReserve || !wal.releaseReserve()) throw error;
    say('reserve released');
    wal.append(entries, hardState);
  }
}

async function makeDurable(wal: RaftWal, options: ChildOptions): Promise<void> {
  if (options.sync === 'async') await wal.syncAsync();
  else wal.sync();
}

/** A disk on which syncing does nothing. */
function withoutSync(): NodeDisk {
  const disk = new NodeDisk();
  disk.syncDirectory = () => undefined;
  const createOrEmpty = disk.createOrEmpty.bind(disk);
  const open = disk.open.bind(disk);
  disk.createOrEmpty = (...args) => Object.assign(createOrEmpty(...args), { fdatasyncSync: () => undefined });
  disk.open = (...args) => Object.assign(open(...args), { fdatasyncSync: () => undefined });
  return disk;
}

try {
  await run(JSON.parse(process.argv[2] as string) as ChildOptions);
} catch (error) {
  const { name, code, message } = error as { name: string; code?: string; message: string };
  writeSync(2, `fatal ${name} ${code} ${message}\n`);
  process.exit(70);
}
