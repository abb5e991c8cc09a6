/**
 * A process that appends to an embedded store and says what was acknowledged; the fault tests kill it, cut its power and lie to it.
 *
 *   node embedded-child.ts '{"dir": …, "groups": 20, "bytes": 100}'
 *
 * Prints `ack BASE TIME` (process.hrtime) per durable group, `refused REASON`, `read N` for what can be read at the end. A fatal error ends the process as a thread
 * entry does it: at once, code 70, one line on stderr.
 */
import { rmSync, writeSync } from 'node:fs';
import { setTimeout } from 'node:timers/promises';
import { BrokerError } from '../../src/base/errors.ts';
import { armFailpoints } from '../../src/base/failpoint.ts';
import { NodeDisk } from '../../src/storage/disk.ts';
import { EmbeddedStore } from '../../src/storage/embedded/embedded-store.ts';
import { sealLanes } from '../../src/storage/embedded/seal-lanes.ts';
import { readAll } from '../contract/message-store.ts';
import { dataBatch, subjectRef, voidBatch } from '../unit/batch-support.ts';

export interface ChildOptions {
  readonly dir: string;
  readonly groups: number;
  /** Body of each message. */
  readonly bytes: number;
  readonly segmentBytes?: number;
  readonly lowSpaceBytes?: number;
  /** Acknowledge without syncing: the control group of a power cut, which must lose data. */
  readonly withoutSync?: boolean;
  readonly failpoints?: string;
  /** Deleted when the disk is full, before writing goes on. */
  readonly ballast?: string;
  /** Say `done` and stay, so that the power can be cut while the process is alive. */
  readonly stay?: boolean;
  /** Groups appended without waiting. */
  readonly inFlight?: number;
}

export const SUBJECT = subjectRef('faults.of.the.disk');

export function childGroup(base: number, bytes: number): ReturnType<typeof dataBatch>[] {
  return [
    dataBatch(SUBJECT, [{ body: Buffer.alloc(bytes, base & 0xff), headers: [], expirationSeconds: 0 }], { base }),
  ];
}

/** Synchronous, so that nothing said is still in a buffer when the process dies. */
function say(line: string): void {
  writeSync(1, `${line}\n`);
}

function die(error: unknown): never {
  const { name, code, message } = error as { name: string; code?: string; message: string };
  writeSync(2, `fatal ${name} ${code} ${message}\n`);
  process.exit(70);
}

async function run(options: ChildOptions): Promise<void> {
  const disk = options.withoutSync === true ? withoutSync() : new NodeDisk();
  sealLanes(disk, options.dir);
  const store = new EmbeddedStore({
    directory: options.dir,
    lane: 0,
    ownsSlot: () => true,
    segmentBytes: options.segmentBytes ?? 1024 * 1024,
    lowSpaceBytes: options.lowSpaceBytes ?? 0,
    cacheBytes: 0,
    onFatal: die,
    disk,
  });
  say('open');
  armFailpoints(options.failpoints ?? '');
  let base = store.lastId(SUBJECT) + 1;
  let isFreed = false;
  const flying: Promise<void>[] = [];
  for (const last = base + options.groups; base < last; base++) {
    const at = base;
    const append = store.append(childGroup(at, options.bytes)).then(
      () => say(`ack ${at} ${process.hrtime.bigint()}`),
      async (error: unknown) => {
        if (!(error instanceof BrokerError)) return die(error);
        say(`refused ${error.reason} ${at}`);
        if (options.ballast !== undefined && !isFreed) {
          isFreed = true;
          say(`read ${(await readAll(store, SUBJECT)).filter(({ kind }) => kind === 'data').length}`);
          rmSync(options.ballast);
          // The mark is looked at once a second.
          if (options.lowSpaceBytes) await setTimeout(1100);
        }
        await store.append([voidBatch(SUBJECT, at, 1)]);
        say(`void ${at}`);
      },
    );
    flying.push(append);
    if (flying.length >= (options.inFlight ?? 1)) await flying.shift();
  }
  await Promise.all(flying);
  say(`read ${(await readAll(store, SUBJECT)).filter(({ kind }) => kind === 'data').length}`);
  say('done');
  if (options.stay === true) setInterval(() => undefined, 1000);
  else await store.close();
}

/** A disk on which syncing a file does nothing. */
function withoutSync(): NodeDisk {
  const disk = new NodeDisk();
  const create = disk.createExclusive.bind(disk);
  disk.createExclusive = (...args) => Object.assign(create(...args), { fdatasync: () => Promise.resolve() });
  return disk;
}

if (process.argv[1]?.endsWith('embedded-child.ts') === true) {
  await run(JSON.parse(process.argv[2] as string) as ChildOptions).catch(die);
}
