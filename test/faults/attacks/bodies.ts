/** Messages that are not what they say they are. */
import { randomBytes } from 'node:crypto';
import { constants, deflateSync, gzipSync } from 'node:zlib';
import { END_STREAM, Frame, frame, headersFrame } from '../../support/http2-frames.ts';
import { encodePublish } from '../../support/wire.ts';
import { type Attack, type Attacker, streamIds, uint32 } from './attacker.ts';

const MEBIBYTE = 1 << 20;
const FRAME_BYTES = 16_384;
const PUBLISH = '/broker.Broker/Publish';
const STREAM = '/broker.v1.Producer/PublishStream';
const CALL = encodePublish({ subject: 'foe.body', body: Buffer.from('x') });

/** Members of a gzip file may follow each other: 4 GiB of zeros in 4 MiB. */
function gzipBomb(): Buffer {
  const member = gzipSync(Buffer.alloc(64 * MEBIBYTE), { level: constants.Z_BEST_COMPRESSION });
  return Buffer.concat(Array.from({ length: 60 }, () => member));
}

const BOMBS = { level: constants.Z_BEST_COMPRESSION };

/** One call after the other on each of `connections`, with this head and these bytes of a body. */
function calls(
  connections: number,
  path: string,
  make: (attacker: Attacker, round: number) => { readonly headers: Record<string, string>; readonly body: Buffer },
): Attack['run'] {
  return (attacker) =>
    attacker.onConnections(connections, {}, async (connection) => {
      const ids = streamIds();
      for (let round = 0; !connection.isClosed && !attacker.isOver; round++) {
        const { headers, body } = make(attacker, round);
        const stream = ids.next().value;
        await connection.write(headersFrame(stream, path, headers));
        for (let at = 0; at < body.length && !connection.isClosed; at += FRAME_BYTES) {
          const flags = at + FRAME_BYTES >= body.length ? END_STREAM : 0;
          await connection.write(frame(Frame.DATA, flags, stream, body.subarray(at, at + FRAME_BYTES)));
        }
        attacker.count('calls');
        await attacker.breathe();
      }
    });
}

function message(bytes: Buffer, isCompressed: boolean): Buffer {
  return Buffer.concat([Buffer.from([isCompressed ? 1 : 0]), uint32(bytes.length), bytes]);
}

function bomb(encoding: string, compress: () => Buffer): Attack['run'] {
  return (attacker) => {
    const body = message(compress(), true);
    return calls(2, PUBLISH, () => ({ headers: { 'grpc-encoding': encoding }, body }))(attacker);
  };
}

const TIMEOUTS = ['', '1', 'S', '-1S', '99999999H', '999999999S', '1e3S', '0n', '1x', '１S', '00000000n', 'NaNm'];
const ENCODINGS = [
  'br',
  'zstd',
  'snappy',
  'gzip,gzip',
  '',
  'identity;q=0',
  '__proto__',
  'constructor',
  'x'.repeat(500),
];

export const BODIES: readonly Attack[] = [
  { name: 'gzip-bomb', about: '4 GiB of zeros in 4 MiB of gzip', run: bomb('gzip', gzipBomb) },
  {
    name: 'deflate-bomb',
    about: '1 GiB of zeros in 1 MiB of deflate',
    run: bomb('deflate', () => deflateSync(Buffer.alloc(1_000 * MEBIBYTE), BOMBS)),
  },
  {
    name: 'nested-bomb',
    about: 'gzip in gzip',
    run: bomb('gzip', () => gzipSync(gzipSync(Buffer.alloc(512 * MEBIBYTE), BOMBS), BOMBS)),
  },
  {
    name: 'small-bombs',
    about: 'many bombs of 4 MiB each, just within the limit, in 4 KB',
    run: (attacker) => {
      const body = message(gzipSync(Buffer.alloc(4 * MEBIBYTE - 64), BOMBS), true);
      return calls(4, PUBLISH, () => ({ headers: { 'grpc-encoding': 'gzip' }, body }))(attacker);
    },
  },
  {
    name: 'odd-encodings',
    about: 'encodings that nobody knows, and compressed messages that are none',
    run: calls(2, PUBLISH, ({ prng }) => ({
      headers: { 'grpc-encoding': ENCODINGS[prng.nextBelow(ENCODINGS.length)] as string },
      body: message(Buffer.from('not compressed at all'), prng.nextBelow(2) === 0),
    })),
  },
  {
    name: 'announced-lengths',
    about: 'messages of 4 GiB, of which a few bytes come, unary',
    run: calls(2, PUBLISH, ({ prng }, round) => ({
      headers: {},
      body: Buffer.concat([
        Buffer.from([0]),
        uint32(round % 2 === 0 ? 0xffff_ffff : prng.nextBelow(2 ** 31)),
        Buffer.alloc(9),
      ]),
    })),
  },
  {
    name: 'announced-lengths-stream',
    about: 'the same on publish streams',
    run: calls(2, STREAM, ({ prng }, round) => ({
      headers: {},
      body: Buffer.concat([
        Buffer.from([round % 3 === 0 ? 1 : 0]),
        uint32(round % 2 === 0 ? 0xffff_ffff : prng.nextBelow(2 ** 31)),
        Buffer.alloc(9),
      ]),
    })),
  },
  {
    name: 'odd-timeouts',
    about: 'grpc-timeout that is none, negative, far too long or over before it began',
    run: calls(2, PUBLISH, ({ prng }) => ({
      headers: { 'grpc-timeout': TIMEOUTS[prng.nextBelow(TIMEOUTS.length)] as string },
      body: message(CALL, false),
    })),
  },
  {
    name: 'garbage',
    about: 'random bytes for messages, subjects that are no UTF-8, metadata of any bytes',
    run: calls(2, PUBLISH, ({ prng }) => {
      const noise = randomBytes(1 + prng.nextBelow(200));
      const isSubject = prng.nextBelow(2) === 0;
      const request = isSubject ? Buffer.concat([Buffer.from([0x0a, noise.length & 0x7f]), noise]) : noise;
      return {
        headers: { 'x-noise-bin': noise.toString('latin1'), 'x-tenant': noise.toString('latin1') },
        body: message(request, false),
      };
    }),
  },
];
