/** A real broker of which strace fails one call on one file: nothing is acknowledged behind it that depended on it, and the process ends or refuses within 1 s. */
import { join } from 'node:path';
import { BrokerStartError } from '../support/broker.ts';
import { onThisMachine } from '../support/yardstick.ts';
import { SMALL_FILES } from './damage-directory.ts';
import { FaultRig, within } from './rig.ts';
import { ONE_FILE_THREAD, Strace } from './strace.ts';

export interface FailingCall {
  /** What the file is, for the table. */
  readonly file: string;
  /** From the data directory; the name that it has when the call is made. */
  readonly path: string;
  /** The system call. */
  readonly call: string;
}

const SEGMENT = 'segments/lane-000/00000001';

/** Every call that writes, makes or syncs something, on every kind of file of a broker with the embedded store. */
export const FAILING_CALLS: readonly FailingCall[] = [
  ...callsOf('log', 'raft/wal-0000000000000001-00000001.log', ['pwrite64', 'fdatasync']),
  ...callsOf('log that begins', 'raft/wal.tmp', ['openat', 'pwrite64', 'fdatasync', 'rename']),
  ...callsOf('snapshot', 'raft/snap.tmp', ['openat', 'pwritev', 'fdatasync', 'rename']),
  ...callsOf('folder of the log', 'raft', ['fsync']),
  ...callsOf('reserve', 'raft/reserve', ['openat', 'pwrite64']),
  ...callsOf('end of the log', 'raft/end.tmp', ['openat', 'pwrite64', 'fdatasync', 'rename']),
  ...callsOf('segment', `${SEGMENT}.seg`, ['openat', 'pwrite64', 'pwritev', 'fdatasync']),
  ...callsOf('folder of the segments', 'segments/lane-000', ['fsync']),
  ...callsOf('index', `${SEGMENT}.idx.tmp`, ['openat', 'pwritev', 'fdatasync', 'rename']),
  ...callsOf('identity', 'node.json.tmp', ['openat', 'pwrite64', 'fdatasync', 'rename']),
  ...callsOf('data directory', '.', ['fsync']),
  ...callsOf('lock', 'LOCK', ['openat']),
];

function callsOf(file: string, path: string, calls: readonly string[]): FailingCall[] {
  return calls.map((call) => ({ file, path, call }));
}

export interface BrokerVerdict {
  readonly ending: 'ended' | 'refused' | 'went on' | 'not reached';
  readonly violations: readonly string[];
}

const DYING_MS = 1_000;
/** Messages that are to be acknowledged behind the start: a segment is full by then, and snapshots were made. */
const LOADED = 400;
const LOAD_MS = 20_000;
const STOP_MS = 30_000;
/** Without these the broker goes on when the disk is full. */
const OPTIONAL = /^(reserve|end of the log|index|log)$/;

export async function failOne(
  { file, path, call }: FailingCall,
  error: 'EIO' | 'ENOSPC',
  number: number,
): Promise<BrokerVerdict> {
  using strace = new Strace();
  await using rig = await FaultRig.create({ flags: [...SMALL_FILES, '--shards', '1'], env: ONE_FILE_THREAD }, number);
  const target = path === '.' ? rig.broker.dataDir : join(rig.broker.dataDir, path);
  rig.broker.launch({ under: strace.under(`${call}:error=${error}:when=${number}`, target) });
  const violations: string[] = [];
  let code: number | null = null;
  try {
    await rig.broker.ready();
    rig.startLoad();
    const loaded = rig.loaded(LOADED).catch(() => undefined);
    await within(Promise.race([rig.broker.exited, loaded]), LOAD_MS);
    if (rig.broker.running) process.kill(rig.broker.pid, 'SIGTERM');
    const exit = await within(rig.broker.exited, STOP_MS);
    if (exit === null) violations.push('it hangs: SIGTERM does not end it');
    code = exit?.code ?? null;
  } catch (thrown) {
    if (!(thrown instanceof BrokerStartError)) throw thrown;
    if (thrown.exit === null) violations.push('it hangs: neither ready nor ended');
    code = thrown.exit?.code ?? null;
  }
  await rig.broker.kill();
  await rig.load.stop();
  const failedAt = strace.injectedAt();
  if (failedAt === 0) return { ending: 'not reached', violations };
  const refusals = [...rig.load.refusals.keys()].some((one) => /STORE_FULL|STORE_UNAVAILABLE/.test(one));
  const ending = code !== 0 ? 'ended' : refusals ? 'refused' : 'went on';
  if (ending === 'ended') {
    const dyingMs = strace.exitedAt() - failedAt;
    if (dyingMs > (await onThisMachine(DYING_MS))) violations.push(`dead ${dyingMs.toFixed(0)} ms after the error`);
    if (rig.load.lastAckedSentAt > failedAt) violations.push('what was sent behind the error was acknowledged');
  }
  const isTold = rig.lines.some((line) => line.level !== 'info' && line.error.includes(error));
  const mayGoOn = isTold || (error === 'ENOSPC' && OPTIONAL.test(file));
  if (ending === 'went on' && !mayGoOn) violations.push('nobody was told of the error');
  await rig.broker.restart();
  violations.push(
    ...(await rig.judge()).violations.map(({ rule, subject, id, detail }) => `${rule} ${subject} ${id} ${detail}`),
  );
  return { ending, violations };
}
