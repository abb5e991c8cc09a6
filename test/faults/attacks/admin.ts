/** The same foes at the admin port: HTTP/1.1. */
import { connect, type Socket } from 'node:net';
import type { Attack, Attacker } from './attacker.ts';

const EVERY_MS = 700;
const HEAD = 'GET /metrics HTTP/1.1\r\nHost: localhost\r\n';
const POST = 'POST /api/messages HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n';

async function open(attacker: Attacker): Promise<Socket> {
  const port = Number(attacker.target.admin.slice(attacker.target.admin.lastIndexOf(':') + 1));
  const socket = connect({ port, host: '127.0.0.1', noDelay: true });
  socket.on('error', () => undefined);
  socket.on('data', (bytes: Buffer) => attacker.count('bytes read', bytes.length));
  await new Promise<void>((resolve) => {
    socket.once('connect', () => resolve());
    socket.once('close', () => resolve());
  });
  attacker.count('connections');
  return socket;
}

function send(socket: Socket, text: string | Buffer): Promise<void> {
  return new Promise((resolve) => {
    if (socket.destroyed) {
      resolve();
      return;
    }
    socket.once('close', resolve);
    socket.write(text, () => {
      socket.off('close', resolve);
      resolve();
    });
  });
}

/** `act` on `count` connections, again and again. */
function on(count: number, act: (attacker: Attacker, socket: Socket) => Promise<void>): Attack['run'] {
  return async (attacker) => {
    const one = async (): Promise<void> => {
      while (!attacker.isOver) {
        const socket = await open(attacker);
        const stop = (): void => void socket.destroy();
        attacker.signal.addEventListener('abort', stop);
        await act(attacker, socket);
        attacker.signal.removeEventListener('abort', stop);
        if (socket.destroyed && !attacker.isOver) attacker.count('cut by the server');
        socket.destroy();
        await attacker.breathe();
        await attacker.pause(20);
      }
    };
    await Promise.all(Array.from({ length: count }, one));
  };
}

/** The beginning, then one piece now and then. */
function slowly(count: number, beginning: string, piece: (round: number) => string): Attack['run'] {
  return on(count, async (attacker, socket) => {
    await send(socket, beginning);
    for (let round = 0; !socket.destroyed && !attacker.isOver; round++) {
      await send(socket, piece(round));
      await attacker.pause(EVERY_MS);
    }
  });
}

/** A whole request as often as it goes, without a look at the answers. */
function again(count: number, request: string): Attack['run'] {
  return on(count, async (attacker, socket) => {
    while (!socket.destroyed && !attacker.isOver) {
      await send(socket, request);
      attacker.count('requests');
      await attacker.breathe();
    }
  });
}

export const ADMIN: readonly Attack[] = [
  {
    name: 'admin-slow-head',
    about: '100 connections, a header every 0.7 s',
    run: slowly(100, HEAD, (n) => `X-${n}: a\r\n`),
  },
  {
    name: 'admin-slow-body',
    about: '100 connections, a byte of a body every 0.7 s',
    run: slowly(100, `${POST}Content-Length: 10000\r\n\r\n`, () => 'x'),
  },
  {
    name: 'admin-chunks',
    about: '100 connections, a chunk of a byte every 0.7 s',
    run: slowly(100, `${POST}Transfer-Encoding: chunked\r\n\r\n`, () => '1\r\nx\r\n'),
  },
  { name: 'admin-large-head', about: 'headers of 1 MiB', run: again(4, `${HEAD}X: ${'v'.repeat(1 << 20)}\r\n\r\n`) },
  { name: 'admin-many-headers', about: '20,000 headers', run: again(4, `${HEAD}${'a: b\r\n'.repeat(20_000)}\r\n`) },
  {
    name: 'admin-long-url',
    about: 'a URL of 1 MiB',
    run: again(4, `GET /${'u'.repeat(1 << 20)} HTTP/1.1\r\nHost: a\r\n\r\n`),
  },
  {
    name: 'admin-large-body',
    about: 'a POST of 16 MiB',
    run: again(4, `${POST}Content-Length: ${16 << 20}\r\n\r\n${'b'.repeat(16 << 20)}`),
  },
  {
    name: 'admin-pipelined',
    about: '100 requests in one packet, answers read',
    run: again(4, `${HEAD}\r\n`.repeat(100)),
  },
  {
    name: 'admin-connections',
    about: '2,000 connections at a time, of which nothing comes',
    run: on(2_000, async (_attacker, socket) => {
      await new Promise<void>((resolve) => {
        if (socket.destroyed) resolve();
        else socket.once('close', () => resolve());
      });
    }),
  },
];
