import { assert } from '../../base/assert.ts';
import type { Address, Versions } from '../types.ts';
import { INCARNATION_MAX } from './incarnation.ts';
import { isNameAllowed, isVersionsAllowed } from './limits.ts';
import type { Profile } from './profile.ts';

export interface MemberListOptions {
  /** Our name, 1 to 128 bytes, unique in the cluster. */
  readonly node: string;
  /** Where the others reach us. */
  readonly address: Address;
  readonly versions: Versions;
  readonly profile: Profile;
  /** 1 to 2^32 - 1: the first incarnation we go by. Too low a one is made up for by a refutation when we join. */
  readonly incarnation: number;
  /** Bytes that encryption, checksum and label add to a packet, 0 to 256. What a compound message adds is counted by the rules. */
  readonly overheadBytes: number;
  /** Members known at most, ourselves, the failed and those that left included; new names beyond are refused. MEMBERS_MAX if left out. */
  readonly membersMax?: number;
}

export const MEMBERS_MAX = 4_096;

export function checkOptions(options: MemberListOptions): void {
  const { profile } = options;
  assert(isNameAllowed(options.node), 'a node is named by 1 to 128 bytes');
  assert(isVersionsAllowed(options.versions), 'versions begin with minimum <= maximum, both above 0');
  assert(
    Number.isInteger(options.incarnation) && options.incarnation >= 1 && options.incarnation <= INCARNATION_MAX,
    'an incarnation is 1 to 2^32 - 1',
  );
  assert(options.overheadBytes >= 0 && options.overheadBytes <= 256, 'overhead of 0 to 256 bytes');
  assert(profile.gossipIntervalMs >= 1 && profile.probeIntervalMs >= 1, 'intervals are at least 1 ms');
  assert(
    profile.probeTimeoutMs >= 1 && profile.probeTimeoutMs <= profile.probeIntervalMs,
    'a probe ends within its interval',
  );
  assert(profile.awarenessMax >= 1, 'awareness is a factor of at least 1');
  assert((options.membersMax ?? MEMBERS_MAX) >= 1, 'we are a member ourselves');
}
