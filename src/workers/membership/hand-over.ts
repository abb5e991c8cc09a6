import type { MemberChangeResult } from '../messages.ts';
import type { RaftHandle } from '../raft/raft-handle.ts';

/**
 * Before a node stops: if it leads, another voter shall, so that nobody has to wait for an election. Null if it has nothing to hand over, or if that
 * has taken longer than `withinMs`.
 */
export async function handOver(
  raft: Pick<RaftHandle, 'cluster' | 'change'>,
  withinMs: number,
): Promise<MemberChangeResult | null> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<null>((resolve) => {
    timer = setTimeout(resolve, withinMs, null);
  });
  const done = async (): Promise<MemberChangeResult | null> => {
    const view = await raft.cluster();
    if (view === null || view.leader !== view.node) return null;
    const hasOthers = view.members.some(({ node, isVoter }) => isVoter && node !== view.node);
    return hasOthers ? await raft.change({ kind: 'transfer', node: '' }) : null;
  };
  const result = await Promise.race([done(), late]);
  clearTimeout(timer);
  return result;
}
