/** A byte now and then, in everything that has to come to an end (slowloris). */
import { Frame, frame, headersFrame, PREFACE } from '../../support/http2-frames.ts';
import { type Attack, type AttackConnection, type Attacker, streamIds } from './attacker.ts';

const EVERY_MS = 700;
const CONNECTIONS = 200;
const NO_SETTINGS = frame(Frame.SETTINGS, 0, 0, Buffer.alloc(0));

async function trickle(attacker: Attacker, connection: AttackConnection, bytes: Buffer): Promise<void> {
  for (let at = 0; at < bytes.length && !connection.isClosed && !attacker.isOver; at++) {
    await connection.write(bytes.subarray(at, at + 1));
    attacker.count('bytes');
    await attacker.pause(EVERY_MS);
  }
  await connection.closed();
}

/** 4 MiB are announced; a byte of them comes now and then, in a DATA frame of its own. */
function slowBody(path: string, first: number): Attack['run'] {
  return (attacker) =>
    attacker.onConnections(4, {}, async (connection) => {
      const ids = streamIds();
      const mine = Array.from({ length: 250 }, () => ids.next().value);
      const head = Buffer.from([0, 0, 0x3f, 0xff, 0]);
      const start = Buffer.concat([head, Buffer.alloc(first)]);
      for (const stream of mine) {
        if (connection.isClosed || attacker.isOver) return;
        await connection.write(headersFrame(stream, path), frame(Frame.DATA, 0, stream, start));
        attacker.count('calls');
      }
      while (!connection.isClosed && !attacker.isOver) {
        await attacker.pause(EVERY_MS);
        await connection.write(...mine.map((stream) => frame(Frame.DATA, 0, stream, Buffer.alloc(1))));
      }
    });
}

export const SLOW: readonly Attack[] = [
  {
    name: 'slow-preface',
    about: '200 connections, a byte of the preface every 0.7 s',
    flags: ['--limits-handshake-timeout', '2s'],
    isTold: true,
    run: (attacker) =>
      attacker.onConnections(CONNECTIONS, { settings: null }, (connection) =>
        trickle(attacker, connection, Buffer.concat([Buffer.from(PREFACE), NO_SETTINGS])),
      ),
  },
  {
    name: 'slow-head',
    about: '200 connections, a byte of HEADERS every 0.7 s',
    run: (attacker) =>
      attacker.onConnections(CONNECTIONS, {}, (connection) =>
        trickle(attacker, connection, headersFrame(1, '/broker.Broker/Publish')),
      ),
  },
  {
    name: 'slow-body',
    about: '1,000 publishes, a byte of each every 0.7 s',
    run: slowBody('/broker.Broker/Publish', 0),
  },
  {
    name: 'slow-body-fetch',
    about: '1,000 calls of Fetch, a byte of each every 0.7 s',
    run: slowBody('/broker.Broker/Fetch', 0),
  },
  {
    name: 'slow-stream',
    about: '1,000 publish streams, a byte of a batch every 0.7 s',
    run: slowBody('/broker.v1.Producer/PublishStream', 0),
  },
  {
    name: 'slow-hoard',
    about: '1,000 publishes that fill what all may hold together, then a byte every 0.7 s',
    flags: ['--limits-in-flight-bytes', '8MiB'],
    run: slowBody('/broker.Broker/Publish', 16_000),
  },
];
