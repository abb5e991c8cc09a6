/** What a node keeps of gossip between two runs: whom it knew, and the keys. */
import assert from 'node:assert/strict';
import { appendFileSync, existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { SerfEvent } from '../../src/gossip/serf/types.ts';
import { NodeDisk } from '../../src/storage/disk.ts';
import { StartError } from '../../src/storage/start-error.ts';
import { KeyringFile } from '../../src/workers/gossip/keyring-file.ts';
import { RejoinFile } from '../../src/workers/gossip/rejoin-file.ts';
import { temporaryFolder } from '../support/temporary.ts';

function listeningLog(): {
  lines: string[];
  debug(): void;
  info(text: string): void;
  warn(text: string): void;
  error(): void;
} {
  const lines: string[] = [];
  const add = (text: string): void => void lines.push(text);
  return { lines, debug: () => undefined, info: add, warn: add, error: () => undefined };
}

const ADDRESS = { host: '10.0.0.1', port: 12_001 };
const NO_TIMES = { time: 0, eventTime: 0, queryTime: 0 };

function event(kind: 'memberJoin' | 'memberFailed', node: string, address = ADDRESS): SerfEvent {
  const status = kind === 'memberJoin' ? 'alive' : 'failed';
  const rest = { tags: new Map(), statusTime: 1, versions: [1, 5, 2, 2, 5, 5] as const, leaveTime: 0 };
  return { kind, members: [{ node, address, status, ...rest }] };
}

test('a node remembers who was alive, its clocks, and what it was known as', async (t) => {
  const path = join(temporaryFolder(t), 'snapshot');
  const log = listeningLog();
  const file = new RejoinFile(path, log);
  assert.deepEqual([file.restored, file.past], [{ nodes: [], ...NO_TIMES }, null]);
  file.onEvent(event('memberJoin', 'a'));
  file.onEvent(event('memberJoin', 'b'));
  await file.flush();
  file.onEvent(event('memberJoin', 'b', { host: '2001:db8::1', port: 1 }));
  file.onEvent(event('memberJoin', 'knoten-ä-😀'));
  file.onEvent(event('memberFailed', 'a'));
  file.onTimes({ time: 7, eventTime: 8, queryTime: 9 });
  file.noteSelf({ address: ADDRESS, incarnation: 4 });
  file.noteSelf({ address: { host: '2001:db8::2', port: 2 }, incarnation: 5 });
  await file.flush();
  const again = new RejoinFile(path, log);
  assert.deepEqual(again.past, { address: { host: '2001:db8::2', port: 2 }, incarnation: 5 });
  assert.deepEqual(again.restored, {
    nodes: [
      { node: 'b', address: { host: '2001:db8::1', port: 1 } },
      { node: 'knoten-ä-😀', address: ADDRESS },
    ],
    time: 7,
    eventTime: 8,
    queryTime: 9,
  });
  assert.deepEqual(log.lines, []);
});

test('the file is written anew when most of it is old, and says the same', async (t) => {
  const path = join(temporaryFolder(t), 'snapshot');
  const file = new RejoinFile(path, listeningLog());
  file.onEvent(event('memberJoin', 'kept'));
  file.noteSelf({ address: ADDRESS, incarnation: 9 });
  let largest = 0;
  for (let round = 0; round < 250; round++) {
    for (let i = 0; i < 20; i++) {
      file.onEvent(event('memberJoin', 'flapping', { host: '10.0.0.2', port: 1 + i }));
      file.onEvent(event('memberFailed', 'flapping'));
    }
    await file.flush();
    largest = Math.max(largest, statSync(path).size);
  }
  assert.ok(largest < 140 * 1024 && statSync(path).size < largest, `at most ${largest} bytes`);
  const again = new RejoinFile(path, listeningLog());
  assert.deepEqual(
    again.restored.nodes.map(({ node }) => node),
    ['kept'],
  );
  assert.equal(again.past?.incarnation, 9);
});

test('damaged lines are passed over with a word in the log, a cut-off one without', async (t) => {
  const path = join(temporaryFolder(t), 'snapshot');
  const file = new RejoinFile(path, listeningLog());
  for (const node of ['a', 'b', 'c']) file.onEvent(event('memberJoin', node));
  await file.flush();
  const text = readFileSync(path, 'utf8');
  writeFileSync(path, text.slice(0, -3));
  const cut = listeningLog();
  const names = (from: RejoinFile): string[] => from.restored.nodes.map(({ node }) => node);
  assert.deepEqual(names(new RejoinFile(path, cut)), ['a', 'b']);
  assert.deepEqual(cut.lines, []);
  writeFileSync(
    path,
    `alive: a 10.0.0.1:1\nnonsense\n\0\0\0\n# self: nowhere 77\n# self: [::1]:5 99999999999\nalive: b 10.0.0.1:x\n`,
  );
  const log = listeningLog();
  const repaired = new RejoinFile(path, log);
  assert.deepEqual([names(repaired), repaired.past, log.lines.length], [['a'], null, 1]);
  repaired.onEvent(event('memberJoin', 'c'));
  await repaired.flush();
  const after = listeningLog();
  assert.deepEqual([names(new RejoinFile(path, after)), after.lines], [['a', 'c'], []]);
});

test('what cannot be written is said once, and the node goes on', async (t) => {
  const log = listeningLog();
  const file = new RejoinFile(join(temporaryFolder(t), 'no-such-folder', 'snapshot'), log);
  file.onEvent(event('memberJoin', 'a'));
  await file.flush();
  file.onEvent(event('memberJoin', 'b'));
  await file.flush();
  assert.equal(log.lines.length, 1);
});

test('keys of the data directory go before those of the configuration, and only their owner reads them', (t) => {
  const folder = temporaryFolder(t);
  const [old, fresh] = [Buffer.alloc(32, 1), Buffer.alloc(16, 2)];
  const file = new KeyringFile(new NodeDisk(), folder);
  assert.deepEqual(file.choose([old], listeningLog()), [old]);
  assert.equal(existsSync(file.path), false);
  file.write([fresh, old]);
  assert.equal(statSync(file.path).mode & 0o777, 0o600);
  assert.deepEqual(JSON.parse(readFileSync(file.path, 'utf8')), [fresh.toString('base64'), old.toString('base64')]);
  const log = listeningLog();
  assert.deepEqual(file.choose([old], log), [fresh, old]);
  assert.deepEqual(log.lines, []);
  file.write([fresh]);
  assert.deepEqual(file.choose([old], log), [fresh]);
  assert.equal(log.lines.length, 1);
});

for (const text of ['', '[]', '{}', '["short"]', `["${Buffer.alloc(20).toString('base64')}"]`]) {
  test(`a keyring file of ${JSON.stringify(text)} ends the start: the cluster may have given up the configured key`, (t) => {
    const file = new KeyringFile(new NodeDisk(), temporaryFolder(t));
    appendFileSync(file.path, text);
    assert.throws(() => file.choose([Buffer.alloc(32)], listeningLog()), StartError);
  });
}
