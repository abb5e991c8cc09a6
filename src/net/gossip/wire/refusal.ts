/**
 * Why bytes were not read. All are the sender's doing, and none says that the connection or the process is in a bad state.
 *
 * - `empty`: nothing, or nothing inside a wrapper.
 * - `tooLarge`: a size or count beyond its cap (limits.ts).
 * - `truncated`: ends early.
 * - `malformed`: whole, and makes no sense.
 * - `otherLabel`: of another cluster, or without the label of this one.
 * - `notEncrypted`: in plain words, and this cluster has keys.
 * - `encrypted`: and this node has no key. (Of streams; an encrypted packet looks like any noise.)
 * - `noKey`: no key of the ring opens it: another key, another label, or changed on its way.
 * - `checksum`: changed on its way.
 * - `nesting`: wrappers in wrappers in wrappers.
 * - `compression`: an unknown algorithm, or not what that algorithm writes.
 * - `unknownType`: a message of a type that this version doesn't know, or not in this place.
 */
export type WireRefusal =
  | 'empty'
  | 'tooLarge'
  | 'truncated'
  | 'malformed'
  | 'otherLabel'
  | 'notEncrypted'
  | 'encrypted'
  | 'noKey'
  | 'checksum'
  | 'nesting'
  | 'compression'
  | 'unknownType';

/** What an operator has to look at, where the settings of two nodes are why. */
export const CAUSES: Readonly<Partial<Record<WireRefusal, string>>> = {
  otherLabel: 'gossip.label of the other side differs',
  notEncrypted: 'the other side has no gossip.key, and this node has one',
  encrypted: 'the other side has a gossip.key, and this node has none',
  noKey: 'the other side encrypts with a key that this node does not have, or has another gossip.label',
};
