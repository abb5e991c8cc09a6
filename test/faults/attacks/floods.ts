/** More streams and connections than there is room for, and answers that nobody takes. */
import { END_HEADERS, Frame, frame, headersFrame, messageFrame } from '../../support/http2-frames.ts';
import { encodePublish, encodeSubscribe } from '../../support/wire.ts';
import { type Attack, AttackConnection, type Attacker, Setting, setting, streamIds } from './attacker.ts';

const PUBLISH = '/broker.Broker/Publish';
const SUBSCRIBE = '/broker.Broker/Subscribe';
const BURST = 200;
const CALL = encodePublish({ subject: 'foe.publish', body: Buffer.from('x') });
const SUBSCRIPTION = encodeSubscribe('foe.subscribe', { at: 'new' });
const NO_WINDOW = setting(Setting.INITIAL_WINDOW_SIZE, 0);

/** `perConnection` streams on each of `connections`, which then stay as they are. */
function streams(
  { connections, perConnection, settings }: { connections: number; perConnection: number; settings?: Buffer },
  make: (stream: number) => readonly Buffer[],
): Attack['run'] {
  return (attacker) =>
    attacker.onConnections(connections, settings === undefined ? {} : { settings }, async (connection) => {
      const ids = streamIds();
      for (let made = 0; made < perConnection && !connection.isClosed && !attacker.isOver; made += BURST) {
        const parts: Buffer[] = [];
        for (let i = 0; i < BURST; i++) parts.push(...make(ids.next().value));
        await connection.write(...parts);
        attacker.count('streams', BURST);
        await attacker.breathe();
      }
      await connection.closed();
    });
}

/** Connections as fast as they go, all kept. */
function connections(settings: Buffer | null): Attack['run'] {
  return (attacker: Attacker) => attacker.onConnections(600, { settings }, (connection) => connection.closed());
}

export const FLOODS: readonly Attack[] = [
  {
    name: 'stream-flood',
    about: '10,000 subscriptions on one connection',
    run: streams({ connections: 1, perConnection: 10_000 }, (stream) => [
      headersFrame(stream, SUBSCRIBE),
      messageFrame(stream, SUBSCRIPTION),
    ]),
  },
  {
    name: 'bodiless-calls',
    about: '1,000 calls on each of 40 connections, of which nothing but the head comes',
    run: streams({ connections: 40, perConnection: 1_000 }, (stream) => [headersFrame(stream, PUBLISH)]),
  },
  {
    name: 'unread-answers',
    about: '1,000 publishes on each of 20 connections whose windows never open',
    run: streams({ connections: 20, perConnection: 1_000, settings: NO_WINDOW }, (stream) => [
      headersFrame(stream, PUBLISH),
      messageFrame(stream, CALL),
    ]),
  },
  {
    name: 'unread-refusals',
    about: 'calls of methods that are not there, on connections that read nothing',
    run: (attacker) =>
      attacker.onConnections(4, { isDeaf: true }, async (connection) => {
        const ids = streamIds();
        while (!connection.isClosed && !attacker.isOver) {
          const parts = Array.from({ length: BURST }, () => {
            const stream = ids.next().value;
            return Buffer.concat([
              headersFrame(stream, '/no/Method', { 'user-agent': 'foe' }),
              messageFrame(stream, CALL),
            ]);
          });
          await connection.write(...parts);
          attacker.count('calls', BURST);
          await attacker.breathe();
        }
      }),
  },
  {
    name: 'connection-flood',
    about: '600 connections that say SETTINGS and nothing more, where 300 are allowed',
    isTold: true,
    flags: ['--limits-connections', '300'],
    run: connections(Buffer.alloc(0)),
  },
  {
    name: 'half-open',
    about: '600 connections that never send the preface, where 300 are allowed',
    isTold: true,
    flags: ['--limits-connections', '300'],
    run: connections(null),
  },
  {
    name: 'connection-churn',
    about: 'connections that are opened and closed as fast as it goes',
    run: async (attacker) => {
      const one = async (): Promise<void> => {
        while (!attacker.isOver) {
          const connection = await AttackConnection.open(attacker.target.grpc);
          attacker.count('connections');
          await connection.write(frame(Frame.HEADERS, END_HEADERS, 1, Buffer.from([0x83])));
          connection.destroy();
          await attacker.breathe();
        }
      };
      await Promise.all(Array.from({ length: 8 }, one));
    },
  },
];
