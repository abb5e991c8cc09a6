/** `broker top` as a person has it: a real program on a real terminal, against a real broker. */
import assert from 'node:assert/strict';
import { readlinkSync } from 'node:fs';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { connect } from '../../src/client/index.ts';
import { LAUNCHER, startBroker } from '../support/broker.ts';
import { ConsumeStream } from '../support/consume-stream.ts';
import { Terminal } from '../support/terminal.ts';
import { requireTool } from '../support/tools.ts';
import { until } from '../support/until.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const KEY = { down: '\u001b[B', tab: '\t', escape: '\u001b', ctrlC: '\u0003' };

function open(address: string, flags: readonly string[] = [], env: Record<string, string> = {}): Terminal {
  const { NODE_OPTIONS: _, NODE_TEST_CONTEXT: __, ...rest } = process.env;
  // With it set already there is one process from the start.
  const clean = { ...rest, UV_THREADPOOL_SIZE: '8', ...env };
  const argv = [process.execPath, LAUNCHER, 'top', '--address', address, '--interval', '250ms', ...flags];
  return new Terminal(argv, { rows: 24, columns: 80, cwd: ROOT, env: clean });
}

const shows = (top: Terminal, pattern: RegExp): Promise<void> =>
  until(
    () => pattern.test(top.text),
    () => `${pattern} is not on the screen:\n${top.text}`,
  );

describe('broker top', () => {
  it('shows what runs, goes through its panes and orders by key, and gives the terminal back', async (t) => {
    if (!requireTool(t, 'terminal')) return;
    await using broker = await startBroker({ flags: ['--shards', '2', '--node-id', 'n1'] });
    await using client = connect(broker.address);
    for (let n = 0; n < 7; n++) await client.publish('top.behind', 'x');
    await client.publish('top.other', 'x');
    const specs = [
      { subject: 'top.behind', earliest: true },
      { subject: 'top.other', new: true },
    ];
    using stream = await ConsumeStream.open(broker.address, specs, { credit: null });
    assert.equal(stream.isComplete, true);
    await using top = open(broker.address);
    await shows(top, /\[1 shards\].*\n *SHARD/);
    assert.deepEqual(top.isTaken, { alternate: true, cursorHidden: true });
    assert.match(top.text, /^broker top {2}n1 {2}cluster broker, alone/);
    assert(top.lines.length <= 24 && top.lines.every((line) => line.length <= 80), top.text);
    top.press('3');
    await shows(top, /\[3 subscriptions\][^\n]*by lag(.*\n){2} *7 +waiting +top\.behind/);
    top.press('s');
    await shows(top, /by messages/);
    top.press('/top.o');
    await shows(top, /^\/top\.o_/m);
    top.press('\r');
    await shows(top, /\/top\.o by messages(.*\n){2} *0 +\S+ +top\.other/);
    assert.doesNotMatch(top.text, /top\.behind/);
    top.press(KEY.escape);
    await shows(top, /top\.behind/);
    top.press('h');
    await shows(top, /Any key goes back/);
    top.press('x');
    top.press(KEY.tab);
    await shows(top, /\[4 connections\][^\n]*by bytes.*\n *CLIENT/);
    top.press('p');
    await shows(top, /PAUSED/);
    top.press('q');
    assert.equal(await top.ended(), 0);
    assert.deepEqual(top.isTaken, { alternate: false, cursorHidden: false });
    assert(top.isKept, 'the terminal echoes again');
  });

  it('follows the size of the terminal, and writes nothing while nothing changes', async (t) => {
    if (!requireTool(t, 'terminal')) return;
    await using broker = await startBroker();
    await using top = open(broker.address, [], { NO_COLOR: '1' });
    await shows(top, /q quit/);
    top.resize(12, 50);
    await until(
      () =>
        top.lines.length === 12 && top.lines.every((line) => line.length <= 50) && /q quit/.test(top.lines[11] ?? ''),
      () => top.text,
    );
    const drawn = top.written.split('\u001b[2J').length;
    top.resize(12, 70);
    await until(
      () => top.written.split('\u001b[2J').length > drawn,
      () => 'a terminal of another width keeps what it has made of the lines',
    );
    top.resize(40, 120);
    await until(
      () => top.lines.length === 40 && /q quit/.test(top.lines[39] ?? ''),
      () => top.text,
    );
    assert.doesNotMatch(top.written, /\[[0-9;]*[1-9]m/, 'no colour where NO_COLOR is set');
    top.press('p');
    await shows(top, /PAUSED/);
    const cleared = top.written.split('\u001b[2J').length;
    const before = top.written.length;
    await until(
      () => top.written.length > before,
      () => 'the clock stands still',
    );
    const added = top.written.slice(before);
    assert(added.length < 400, `only the clock has changed, and ${added.length} bytes were written`);
    assert.equal(top.written.split('\u001b[2J').length, cleared, 'the screen is not cleared again');
    top.press(KEY.ctrlC);
    assert.equal(await top.ended(), 130);
    assert.deepEqual(top.isTaken, { alternate: false, cursorHidden: false });
    assert(top.isKept, 'the terminal echoes again');
  });

  it('says since when a broker does not answer, goes on when it is back, and leaves the terminal as it was at SIGTERM', async (t) => {
    if (!requireTool(t, 'terminal')) return;
    await using broker = await startBroker({ flags: ['--node-id', 'n1'] });
    await using top = open(broker.address);
    await shows(top, /no warnings/);
    await broker.kill();
    await shows(top, /! no answer since \d\d:\d\d:\d\dZ \(\d+s\): .*(connect|lost)/);
    assert.match(top.text, /broker top {2}n1/, 'what was known last stays');
    await broker.restart();
    await shows(top, /no warnings/);
    const { pid } = top;
    assert(pid !== null);
    const terminal = readlinkSync(`/proc/${pid}/fd/0`);
    assert.match(terminal, /^\/dev\/pts\//);
    process.kill(pid, 'SIGTERM');
    assert.equal(await top.ended(), 130);
    assert.deepEqual(top.isTaken, { alternate: false, cursorHidden: false });
    assert(top.isKept, 'the terminal echoes again');
  });

  it('tells at once that nobody is there, like any other command', async (t) => {
    if (!requireTool(t, 'terminal')) return;
    await using broker = await startBroker();
    await broker.kill();
    await using top = open(broker.address);
    assert.equal(await top.ended(), 3);
    assert.match(top.text, /cannot connect to/);
    assert.doesNotMatch(top.written, /1049/);
  });
});
