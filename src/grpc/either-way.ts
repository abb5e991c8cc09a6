import type { Http2Server } from 'node:http2';
import type { Socket } from 'node:net';
import { assert } from '../base/assert.ts';
import { HANDSHAKE_TIMEOUT_MS } from '../tls/contexts.ts';
import { onFirstByte } from '../tls/first-byte.ts';

type Listener = (this: Http2Server, socket: Socket) => void;

/**
 * Has a server of TLS take clear text too, for the time in which a cluster and its clients go from one to the other: what begins with no handshake is taken
 * as HTTP/2.
 */
export function takeClearTextToo(http2Server: Http2Server): void {
  const listeners = http2Server.listeners('connection') as Listener[];
  const handshake = listeners.find(({ name }) => name === 'tlsConnectionListener');
  assert(handshake !== undefined, 'Node has changed: who begins the handshakes of a server has another name');
  http2Server.off('connection', handshake);
  http2Server.on('connection', (socket: Socket) => {
    const timer = setTimeout(() => socket.destroy(), HANDSHAKE_TIMEOUT_MS);
    const onError = (): void => void socket.destroy();
    socket.on('error', onError);
    socket.once('close', () => clearTimeout(timer));
    onFirstByte(socket, (isTls) => {
      clearTimeout(timer);
      socket.off('error', onError);
      if (isTls) handshake.call(http2Server, socket);
      // Where Node goes on with a connection whose handshake is done.
      else http2Server.emit('secureConnection', socket);
    });
  });
}
