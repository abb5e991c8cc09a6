import { createHmac, timingSafeEqual } from 'node:crypto';
import type { Member } from '../../replica/types.ts';

/** What is signed begins with this: a proof is of no use for anything else. */
const PURPOSE = 'broker.v1.Cluster/Join';

/**
 * What shows that a node that wants to be taken in has the gossip key: HMAC-SHA-256 (RFC 2104) over the purpose, the cluster id and what the node is,
 * each field behind its length. Whoever repeats it has the same node taken in at the same place.
 */
export function joinProof(key: Uint8Array, clusterId: string, { node, instance, raft, grpc }: Member): Uint8Array {
  const mac = createHmac('sha256', key);
  for (const field of [PURPOSE, clusterId, node, instance, raft, grpc]) {
    const bytes = Buffer.from(field);
    const length = Buffer.alloc(4);
    length.writeUInt32BE(bytes.length);
    mac.update(length).update(bytes);
  }
  return mac.digest();
}

/** By any of the keys: while they are rotated nodes differ in which is the first. */
export function isProven(keys: readonly Uint8Array[], clusterId: string, member: Member, proof: Uint8Array): boolean {
  return keys.some((key) => {
    const right = joinProof(key, clusterId, member);
    return right.length === proof.length && timingSafeEqual(right, proof);
  });
}
