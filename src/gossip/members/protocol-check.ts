import type { MemberState, NodeState, Versions } from '../types.ts';

interface Versioned {
  readonly node: string;
  readonly state: MemberState;
  readonly versions: Versions;
}

/** Where [minimum, maximum, current] of the protocol and of the delegate's begin in `Versions`. */
const PROTOCOLS = [
  ['protocol', 0],
  ['delegate protocol', 3],
] as const;

/** state.go verifyProtocol: null if every node speaks a version that all live ones understand, or who does not. */
export function protocolFault(remote: readonly NodeState[], known: Iterable<Versioned>): string | null {
  const all: readonly Versioned[] = [...remote, ...known];
  for (const [name, at] of PROTOCOLS) {
    let [least, most] = [0, 255];
    for (const { state, versions } of all) {
      if (state !== 'alive') continue;
      least = Math.max(least, versions[at]);
      most = Math.min(most, versions[at + 1] as number);
    }
    const misfit = all.find(
      ({ versions }) => (versions[at + 2] as number) < least || (versions[at + 2] as number) > most,
    );
    if (misfit !== undefined) {
      return `node ${misfit.node} speaks ${name} version ${misfit.versions[at + 2]}, the others understand ${least} to ${most}`;
    }
  }
  return null;
}
