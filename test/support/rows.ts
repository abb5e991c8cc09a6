/**
 * The known traps of brokers and consensus systems that must have a test. A test that covers one carries its tag in its name: `[S5]`, or
 * `[R3, R4]`. `npm test -- --rows` prints which tests cover which row.
 */
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

export const ROWS: Readonly<Record<string, string>> = {
  P1: 'ids repeat behind a change of leader',
  P2: 'Raft log and vote live in memory only',
  P3: 'acknowledged before the store has the message, store errors only printed',
  P4: 'bodies or subjects change or break on their way through the store',
  P5: 'subjects overwrite each other in Cassandra',
  P6: 'subscribers get copies, lose messages silently, or are never removed',
  P7: 'a subscriber cannot tell the id of what it received',
  P8: 'expiry is a timer that a restart forgets',
  P9: 'a node that gossip calls failed loses its vote',
  P11: 'errors reach the client with a wrong status',
  G1: 'gossip that flaps, or one forged packet, takes voters away',
  G2: 'a node of another cluster, or of a name that is taken, is let in because gossip has seen it',
  G3: 'two nodes that start at the same time make two clusters',
  G4: 'a node that comes back at another address is not found, or taken for who is at its old one',
  G5: 'a thread that stood still calls everybody else dead',
  G6: 'gossip without the key, of another label, or sent again is believed',
  G7: 'a field of gossip without a bound takes the memory',
  G8: 'what gossip says decides who leads, or what a majority is',
  R1: 'entries of an older term are committed by counting',
  R2: 'reads before the own term has committed',
  R3: 'vote or term spoken before it is on disk',
  R4: 'append counted before it is on disk',
  R5: 'a late append cuts off what matches',
  R6: 'the end of an older write vouches for what replaced it',
  R7: 'applied before it is on disk here',
  R8: 'up to date is judged wrong behind a snapshot',
  R9: 'pre-vote and quorum check one without the other',
  R10: 'a leader that is cut off goes on serving',
  R11: 'stale reads behind a pause or a step of the clock',
  R12: 'two changes of members whose majorities do not meet',
  R13: 'a change of members while one is not applied',
  R14: 'a leader that was removed counts itself',
  R15: 'a removed or cut-off node disturbs with later terms',
  R16: 'a new voter with an empty log stops commits',
  R17: 'a learner that has become a voter does not vote',
  R18: 'a handover of the lead loses or blocks proposals',
  R19: 'a snapshot races with appends',
  R20: 'a slow follower never catches up behind a compaction',
  R21: 'log or flight of a follower that is away have no bound',
  R22: 'lost answers leave a commit index behind',
  R23: 'a node with an empty disk votes again',
  R24: 'torn tail and damage in the middle are confused',
  R25: 'a retried command is applied twice',
  R26: 'producer windows are lost in a snapshot or expire by a local clock',
  R27: 'an outcome that is not known is called a failure',
  R28: 'the state machine depends on more than its log',
  R29: 'ids lose digits beyond 2^53',
  R30: 'all nodes that wake up together draw the same timeouts',
  R31: 'two processes open one data directory',
  S1: 'the default configuration acknowledges before fsync',
  S2: 'an fsync error is retried or ignored',
  S3: 'bytes written during an fsync are acknowledged with it',
  S4: 'a new or renamed file without an fsync of its folder',
  S5: 'a checksum that leaves something out, or passes zeros',
  S6: 'an old chunk with a valid checksum comes back',
  S7: 'a short write is taken for a whole one',
  S8: 'a full disk crashes the broker or half a record is acknowledged',
  S9: 'cleaning up deletes what may be data',
  S10: 'retention believes the wall clock',
  S11: 'an id without a message, for ever: readers wait at a hole',
  S12: 'a late write replaces what has its verdict',
  S13: 'Cassandra acknowledges before it syncs, or orders by client clocks',
  S14: 'PostgreSQL loses or doubles a commit whose answer was lost',
  S15: 'a slow store stops heartbeats',
  S16: 'recovery reads the whole log into memory or takes minutes',
  W1: 'a worker dies and the process lives on as a zombie',
  W2: 'a shared word stays set after its owner died',
  W3: 'a half-written ring record is visible',
  W4: 'lost wake-up, wrap of counters, full taken for empty',
  W5: 'a wait without an end, or on the main thread',
  W6: 'memory outside the heap has no bound',
  W7: 'a full ring drops silently or spins',
  W8: 'an answer reaches a request whose connection or worker was replaced',
  W9: 'a pause of the garbage collector stops heartbeats',
  F1: 'HTTP/2 limits that are unlimited by default',
  F2: 'a slow subscriber eats memory',
  F3: 'what happens to a slow subscriber is not defined',
  F4: 'many quick cancels end the session of an honest client',
  F5: 'abuse of HTTP/2 frames',
  F6: 'compressed input grows without limit',
  F7: 'protobuf parsers with known flaws',
  F9: 'no admission control: every answer comes too late',
  F10: 'requests whose deadline has passed are still carried out',
  F11: 'retries of our client make an overload worse',
};

const TAGS = /\[((?:[A-Z]\d+)(?:, ?[A-Z]\d+)*)\]/g;

/** Row -> files of test/ that have a test tagged with it. */
export function coverage(root: string): Map<string, string[]> {
  const covered = new Map<string, string[]>(Object.keys(ROWS).map((row) => [row, []]));
  for (const file of globSync('test/**/*.test.ts', { cwd: root }).sort()) {
    const tags = new Set<string>();
    for (const match of readFileSync(join(root, file), 'utf8').matchAll(TAGS)) {
      for (const tag of (match[1] as string).split(/, ?/)) tags.add(tag);
    }
    for (const tag of tags) covered.get(tag)?.push(file);
  }
  return covered;
}

/** The table of `npm test -- --rows`. */
export function formatCoverage(covered: ReadonlyMap<string, readonly string[]>): string {
  const lines = [...covered].map(([row, files]) => {
    const where = files.length === 0 ? 'NO TEST' : files.map((file) => file.replace(/^test\//, '')).join(', ');
    return `${row.padEnd(4)} ${(ROWS[row] ?? '').padEnd(82)} ${where}`;
  });
  const missing = [...covered].filter(([, files]) => files.length === 0).map(([row]) => row);
  const summary = `${covered.size - missing.length} of ${covered.size} rows have a test`;
  return [...lines, '', missing.length === 0 ? summary : `${summary}; missing: ${missing.join(' ')}`].join('\n');
}
