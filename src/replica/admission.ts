import { isPlanted } from '../base/planted.ts';
import { type MessageType, NOBODY, type NodeId } from '../raft/messages.ts';
import type { Member, PeerFrame } from './types.ts';

/** What is heard of a node that speaks to this one. */
export type Hearing =
  | 'everything'
  /** What asks for something and promises nothing (`isHeard`). */
  | 'requests'
  | 'nothing';

/** A leader and a candidate may be of no configuration that this node knows (Raft thesis 4.1). What they have of its answers counts with them, by their own tables. */
const REQUESTS: ReadonlySet<MessageType> = new Set(['append', 'heartbeat', 'snapshot', 'vote', 'pre-vote']);

/**
 * What is heard of a node, by the table of members as far as this node has applied the log. A name that the table has with another instance promises
 * nothing: that voter lost its disk, and with it its promises (R23). But whoever was away long knows an old table, in which the leader of now may be the
 * instance before: a node that hears no other leader hears its requests, for only the log that they bring tells it better. A name that the table does not have is
 * heard: that leader may be younger than the table (seed 16 of the cluster simulation). A removed node that goes on harms nobody: Raft counts only members'
 * answers, and ignores who campaigns while a leader lives (R15).
 */
export function hearingOf(members: readonly Member[], leader: NodeId, node: NodeId, instance: string): Hearing {
  const member = members.find((each) => each.node === node);
  if (member === undefined || member.instance === instance || isPlanted('R23-any-instance')) return 'everything';
  return leader === NOBODY || leader === node ? 'requests' : 'nothing';
}

export function isHeard(hearing: Hearing, frame: PeerFrame): boolean {
  if (hearing === 'everything') return true;
  return hearing === 'requests' && frame.kind === 'raft' && REQUESTS.has(frame.message.type);
}

/** Whom this node speaks to under the name of a member: the instance of its table, or one that asks something and would get no answer else. */
export class SpokenTo {
  readonly #asking = new Map<NodeId, { readonly instance: string; readonly inPlaceOf: string }>();

  /** A node speaks, and is heard like that. True: whom this one speaks to has changed. */
  heard(members: readonly Member[], node: NodeId, instance: string, hearing: Hearing): boolean {
    if (hearing === 'everything') return this.#asking.delete(node);
    const inPlaceOf = members.find((each) => each.node === node)?.instance;
    if (hearing === 'nothing' || inPlaceOf === undefined || this.#asking.get(node)?.instance === instance) return false;
    this.#asking.set(node, { instance, inPlaceOf });
    return true;
  }

  /** As soon as the table has a newer row, that counts. */
  instanceOf({ node, instance }: Member): string {
    const asking = this.#asking.get(node);
    return asking?.inPlaceOf === instance ? asking.instance : instance;
  }
}
