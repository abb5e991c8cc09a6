import { hash } from 'node:crypto';
import { SPACE_END } from '../../base/subject-space.ts';
import { PRODUCER_BYTES_MAX } from '../../grpc/codec.ts';

/**
 * What the producer of a client is called inside the broker. The log of every version takes 64 bytes; a name that is too long behind its space is
 * replaced by a digest of both, which begins with 0x1F as no other name does. So there is no new limit that nodes of different versions could
 * disagree about. `space` is not empty.
 */
export function producerInSpace(space: Uint8Array, producer: Uint8Array): Buffer {
  const name = Buffer.concat([space, producer]);
  if (name.length <= PRODUCER_BYTES_MAX) return name;
  return Buffer.from(`${String.fromCharCode(SPACE_END)}${hash('sha256', name, 'base64url')}`);
}
