/** `broker check` and `broker status` against real brokers. */
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { describe, it } from 'node:test';
import { connect } from '../../src/client/index.ts';
import { LAUNCHER, startBroker } from '../support/broker.ts';
import { ConsumeStream } from '../support/consume-stream.ts';
import { requireTool } from '../support/tools.ts';
import { until } from '../support/until.ts';

interface Ran {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

/** The command as an operator types it; it never keeps the test's own event loop. */
async function run(address: string, ...argv: readonly string[]): Promise<Ran> {
  const child = spawn(process.execPath, [LAUNCHER, ...argv, '--address', address], {
    env: { PATH: process.env.PATH, UV_THREADPOOL_SIZE: '8' },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const text = { out: '', err: '' };
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
    text.out += chunk;
  });
  child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
    text.err += chunk;
  });
  const code = await new Promise<number | null>((resolve) => child.on('close', resolve));
  return { code, ...text };
}

/** What hangs on how busy the machine is. */
const STEADY = ['--skip', 'event_loop,store_write,disk_free,clock_skew'];

describe('a broker that is watched', () => {
  it('check: 0 while all is well, 1 and 2 by the limits for a subscriber that is behind, 2 when nobody answers', async () => {
    await using broker = await startBroker({ flags: ['--node-id', 'n1'] });
    await using client = connect(broker.address);
    const well = await run(broker.address, 'check', ...STEADY);
    assert.deepEqual([well.code, well.err], [0, ''], well.out);
    assert.match(well.out, /^broker \S+ OK: all 10 checks\nOK +reachable +n1 \d/);
    for (let n = 0; n < 12; n++) await client.publish('check.lag', 'x');
    using stream = await ConsumeStream.open(broker.address, [{ subject: 'check.lag', earliest: true }], {
      credit: null,
    });
    assert.equal(stream.isComplete, true);
    const limits = ['--only', 'lag', '--warn', 'lag=12'];
    let last: Ran | null = null;
    await until(
      async () => {
        last = await run(broker.address, 'check', ...limits, '--critical', 'lag=13');
        return last.code === 1;
      },
      () => JSON.stringify(last),
    );
    assert.equal((await run(broker.address, 'check', ...limits, '--critical', 'lag=12')).code, 2);
    const status = await run(broker.address, 'status');
    assert.equal(status.code, 0);
    assert.match(status.out, /^node +n1, version .*\ncluster +broker, alone.*\nready +yes\nstore +embedded, durable/);
    assert.match(status.out, /^subjects +1 of 1,000,000/m);
    await broker.kill();
    const gone = await run(broker.address, 'check');
    assert.deepEqual([gone.code, gone.err], [2, '']);
    assert.match(gone.out, /^broker \S+ CRITICAL: reachable\n/);
    assert.equal((await run(broker.address, 'status')).code, 3, 'other commands have their own codes');
  });

  it('check: what Prometheus is given is clean for promtool', async (t) => {
    if (!requireTool(t, 'promtool')) return;
    await using broker = await startBroker();
    const { out } = await run(broker.address, 'check', '-o', 'prometheus');
    const { status, stdout, stderr } = spawnSync('promtool', ['check', 'metrics'], { input: out, encoding: 'utf8' });
    assert.deepEqual([status, stdout, stderr], [0, '', ''], out);
    assert.match(out, /^broker_check_level\{address="[^"]+",check="lag"\} 0$/m);
  });

  it('status tells what the node is busy with', async () => {
    await using broker = await startBroker();
    await using client = connect(broker.address);
    let status = await client.status();
    await until(
      async () => {
        await Promise.all(Array.from({ length: 20 }, () => client.publish('s.a', Buffer.alloc(1_000))));
        status = await client.status();
        return status.messagesInPerSecond > 0 && status.publishP99Ms > 0 && status.storeWriteP99Ms > 0;
      },
      () => JSON.stringify(status),
    );
    assert(status.bytesInPerSecond > status.messagesInPerSecond * 1_000);
    assert.equal(status.ready, true);
    assert(status.diskFreeBytes > 0 && status.diskFreeBytes <= status.diskBytes);
    assert.equal(status.connections, 1);
    assert(status.mainUtilization >= 0 && status.mainUtilization <= 1);
  });
});
