/** A worker thread that sends one UDP packet again and again at a steady rate, until it is ended. */
import { createSocket } from 'node:dgram';
import { workerData } from 'node:worker_threads';

export interface PacketFlood {
  readonly host: string;
  readonly port: number;
  readonly packet: Uint8Array;
  readonly perSecond: number;
}

const { host, port, packet, perSecond } = workerData as PacketFlood;
const STEP_MS = 2;
const socket = createSocket('udp4');
// What comes back is not wanted, and must not fill a buffer of the kernel.
socket.on('message', () => undefined);
socket.bind(0, '127.0.0.1', () => {
  const began = performance.now();
  let sent = 0;
  setInterval(() => {
    for (const due = ((performance.now() - began) / 1_000) * perSecond; sent < due; sent += 1) {
      socket.send(packet, port, host);
    }
  }, STEP_MS);
});
