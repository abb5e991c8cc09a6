import type { Socket } from 'node:net';

/** The first byte of a record with a handshake (RFC 8446, section 5.1). No clear text of the broker's begins with it: a hello does with B, HTTP/2 with P. */
const HANDSHAKE = 0x16;

/**
 * Calls once with whether a connection begins with a handshake of TLS; what was read is put back. Not for one that ends before, nor after what it returns was
 * called.
 */
export function onFirstByte(socket: Socket, then: (isTls: boolean) => void): () => void {
  const look = (): void => {
    const first = socket.read(1) as Buffer | null;
    if (first === null) return;
    socket.off('readable', look);
    socket.unshift(first);
    then(first[0] === HANDSHAKE);
  };
  socket.on('readable', look);
  return () => socket.off('readable', look);
}
