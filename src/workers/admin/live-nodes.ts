import { BrokerError } from '../../base/errors.ts';
import { isServiceError } from '../../grpc/cluster-client.ts';
import type { Quotas } from '../front/quotas.ts';
import type { ClusterService } from '../membership/cluster-service.ts';

/** How often the members are counted, in ms. */
const COUNT_MS = 2_000;
const TIMEOUT_MS = 1_500;

/** For so many looks in a row a leader is waited for. */
const LOOKS_UNTOLD_MAX = 5;

/**
 * Divides quotas between the nodes of the cluster that its leader hears, this one included. While no leader says, the last number stays; for longer than an
 * election takes, and as long as none has said it, as one with an access file tells nobody who shows no certificate of a node, that of all members: each taking the whole would be many times as much.
 */
export function watchNodes(cluster: Pick<ClusterService, 'members'>, quotas: Quotas): NodeJS.Timeout {
  let isAsking = false;
  let looksUntold = LOOKS_UNTOLD_MAX;
  const count = async (): Promise<void> => {
    if (isAsking || !quotas.isOn) return;
    isAsking = true;
    try {
      const { members } = await cluster.members({ isForwarded: false, deadlineMs: Date.now() + TIMEOUT_MS });
      const live = members.filter(({ isActive }) => isActive).length;
      looksUntold = live > 0 ? 0 : looksUntold + 1;
      const nodes = looksUntold < LOOKS_UNTOLD_MAX ? live : members.length;
      if (nodes > 0) quotas.setNodes(nodes);
    } finally {
      isAsking = false;
    }
  };
  const look = (): void => {
    count().catch((error: unknown) => {
      // A node that stops, or a leader that does not answer: it is asked again. Anything else is a defect, and ends the process.
      if (!(error instanceof BrokerError || isServiceError(error))) throw error;
    });
  };
  look();
  return setInterval(look, COUNT_MS).unref();
}
