import { isPlanted } from '../base/planted.ts';
import type { NodeId } from '../raft/messages.ts';
import type { Member } from './types.ts';

/**
 * Whether a node may speak here, by the table of members as far as this node has applied the log. A name that the table has with another instance has no
 * say: that voter lost its disk, and with it its promises (R23). A name that the table does not have is heard: whoever was away long knows an old table, and
 * the leader of now may be younger than that (seed 16 of the cluster simulation). A removed node that goes on harms nobody: Raft counts only members'
 * answers, and ignores who campaigns while a leader lives (R15).
 */
export function isAdmitted(members: readonly Member[], node: NodeId, instance: string): boolean {
  const member = members.find((each) => each.node === node);
  return member === undefined || member.instance === instance || isPlanted('R23-any-instance');
}
