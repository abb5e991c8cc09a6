/** The network of a cluster's nodes does what the campaigns take for granted. */
import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';
import { ClusterNetwork } from '../support/network.ts';
import { requireTool } from '../support/tools.ts';

const PORT = 12_000;
const DATAGRAMS = 400;

/** What one sender sends has room in the socket of a receiver that does not run meanwhile. */
const RECEIVE_BYTES = 400 << 10;

/** Runs in a node: says how many datagrams came from each host when it is asked, by a line, and forgets them. What is still in the socket then counts. */
const RECEIVER = `
  const { setTimeout: sleep } = require('node:timers/promises');
  const socket = require('node:dgram').createSocket({ type: 'udp4', recvBufferSize: ${RECEIVE_BYTES} });
  let counts = {};
  let total = 0;
  socket.on('message', (_, { address }) => { counts[address] = (counts[address] ?? 0) + 1; total += 1; });
  socket.bind(${PORT}, () => console.log('{}'));
  process.stdin.on('data', async () => {
    for (let seen = -1, quiet = 0; quiet < 5; seen = total) {
      await sleep(10);
      quiet = seen === total ? quiet + 1 : 0;
    }
    console.log(JSON.stringify(counts));
    counts = {};
  }).on('end', () => process.exit());`;

/** Runs in a node: sends datagrams to hosts. */
const SENDER = `
  const socket = require('node:dgram').createSocket('udp4');
  (async () => {
    for (let n = 0; n < ${DATAGRAMS}; n++) {
      for (const host of process.argv.slice(1)) await new Promise((done) => socket.send('x', ${PORT}, host, done));
    }
    socket.close();
  })();`;

test('links of a network of three nodes: cut in one direction, in both, with a loss, and whole again', async (t) => {
  if (!requireTool(t, 'namespaces')) return;
  await using network = await ClusterNetwork.create(3);
  const hosts = [0, 1, 2].map((node) => network.host(node));
  const inNode = (node: number, script: string, args: readonly string[]): string[] => [
    ...network.under(node),
    process.execPath,
    ...['-e', script],
    ...args,
  ];
  const receivers = await Promise.all(hosts.map((_, node) => startReceiver(inNode(node, RECEIVER, []))));
  /** How many of the datagrams of each node came to each other node, as a share. */
  const shares = async (): Promise<number[][]> => {
    const rows: number[][] = [];
    for (const [node, from] of hosts.entries()) {
      const [program, ...args] = inNode(
        node,
        SENDER,
        hosts.filter((_, other) => other !== node),
      );
      execFileSync(program as string, args);
      const counts = await Promise.all(receivers.map(ask));
      rows.push(counts.map((count) => (count[from] ?? 0) / DATAGRAMS));
    }
    return rows;
  };
  try {
    const whole = [
      [0, 1, 1],
      [1, 0, 1],
      [1, 1, 0],
    ];
    assert.deepEqual(await shares(), whole);
    network.set({
      cuts: [
        { from: 0, to: 1 },
        ...[
          { from: 1, to: 2 },
          { from: 2, to: 1 },
        ],
      ],
    });
    assert.deepEqual(await shares(), [
      [0, 0, 1],
      [1, 0, 0],
      [1, 0, 0],
    ]);
    network.set({ lossPercent: 20 });
    const [[, lossy = 0] = []] = await shares();
    assert.ok(lossy > 0.7 && lossy < 0.9, String(lossy));
    network.set();
    assert.deepEqual(await shares(), whole);
  } finally {
    for (const receiver of receivers) receiver.stdin?.end();
  }
});

async function startReceiver([program, ...args]: readonly string[]): Promise<ChildProcess> {
  const child = spawn(program as string, args, { stdio: ['pipe', 'pipe', 'inherit'] });
  await once(child.stdout as NodeJS.ReadableStream, 'data');
  return child;
}

async function ask(receiver: ChildProcess): Promise<Record<string, number>> {
  receiver.stdin?.write('?\n');
  const [line] = await once(receiver.stdout as NodeJS.ReadableStream, 'data');
  return JSON.parse(String(line)) as Record<string, number>;
}
