import type { Member } from '../../replica/types.ts';
import type { RaftAddress } from '../messages.ts';

/** Whom the Raft node dials. */
export interface DialedPeer {
  readonly node: string;
  /** HOST:PORT */
  readonly address: string;
  readonly instance: string;
  /** HOST:PORT where gossip says that it is by now: tried only while nothing answers at `address`. Null: nobody says so. */
  readonly rumour: string | null;
}

/**
 * The members of the log, and of those that a node that joins was `told` the ones that its log does not have yet, or as another instance: a snapshot may be
 * older than the leader's own part in the cluster, and who does not answer the leader is sent nothing more. `told` is empty once the log has caught up. Not `self`, nor those without an address. What was `heard` outside of it, by gossip, counts for where the
 * instance is that is a member, and for nothing else (G1, G4, G8).
 */
export function dialList(
  members: readonly Member[],
  told: readonly Member[],
  heard: ReadonlyMap<string, RaftAddress>,
  self: string,
): readonly DialedPeer[] {
  const isSame = (a: Member, b: Member): boolean => a.node === b.node && a.instance === b.instance;
  const newer = told.filter((each) => !members.some((member) => isSame(member, each)));
  const known = members.filter(({ node }) => newer.every((each) => each.node !== node));
  return [...known, ...newer]
    .filter(({ node, raft }) => node !== self && raft !== '')
    .map(({ node, raft, instance }) => {
      const moved = heard.get(node);
      return { node, address: raft, instance, rumour: moved?.instance === instance ? moved.raft : null };
    });
}
