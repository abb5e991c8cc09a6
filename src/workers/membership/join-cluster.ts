import type { Member } from '../../replica/types.ts';
import { StartError } from '../../storage/start-error.ts';

/** How one seed answered. `refused`: it is a no that asking again does not change. */
export type JoinAnswer =
  | { readonly kind: 'joined'; readonly members: readonly Member[] }
  | { readonly kind: 'refused'; readonly reason: string; readonly message: string }
  | { readonly kind: 'unavailable'; readonly message: string };

export interface JoinPort {
  /** Never rejects. */
  ask(seed: string, clusterId: string, member: Member, signal: AbortSignal): Promise<JoinAnswer>;
  /** Resolves after `ms`, when there is news of others, or when the signal is aborted. */
  pause(ms: number, signal: AbortSignal): Promise<void>;
  /** How far it is, for the log. */
  tell(message: string, fields: Readonly<Record<string, string | number>>): void;
}

/** Between two rounds over all seeds. */
const RETRY_MS = 500;
/** Rounds in which everybody that was asked said no for good, until that ends a start whose seeds were met by gossip. */
const REFUSED_ROUNDS_MAX = 3;
/** When the log is told again that it goes on waiting, at the soonest; without news the time doubles, up to the longest. */
const TELL_MS_MIN = 5_000;
const TELL_MS_MAX = 60_000;

/** What keeps nodes from meeting by gossip. */
export const CHECK_GOSSIP =
  'what --gossip-join or --discovery names, UDP and TCP of the gossip port from here, and that gossip.key, gossip.label and cluster are the same on all nodes; warnings above say more';

/** Says that something is waited for: news within seconds, the same words less and less often, since a wait may take days. */
export class WaitingNews {
  readonly #port: Pick<JoinPort, 'pause' | 'tell'>;
  #sinceMs = TELL_MS_MIN;
  #everyMs = TELL_MS_MIN;
  #lastTold = '';

  constructor(port: Pick<JoinPort, 'pause' | 'tell'>) {
    this.#port = port;
  }

  /** `check`: what to look at, said to those who have waited for a while. */
  async again(
    message: string,
    fields: Readonly<Record<string, string | number>>,
    check: string,
    signal: AbortSignal,
  ): Promise<void> {
    const words = JSON.stringify([message, fields]);
    const isNews = words !== this.#lastTold;
    if (this.#sinceMs >= (isNews ? TELL_MS_MIN : this.#everyMs)) {
      this.#port.tell(message, this.#lastTold === '' ? fields : { ...fields, check });
      // Told first, then after 5, 10, 20, 40 s, then once a minute.
      this.#everyMs = isNews ? TELL_MS_MIN : Math.min(TELL_MS_MAX, this.#everyMs * 2);
      this.#lastTold = words;
      this.#sinceMs = 0;
    }
    this.#sinceMs += RETRY_MS;
    await this.#port.pause(RETRY_MS, signal);
  }
}

/**
 * Asks one seed after the other to take the node in as a learner, until one has passed that on to the leader; the members that the cluster has then.
 * Asking again is harmless. StartError JOIN_REFUSED for a refusal that lasts; the signal's reason if it is aborted. Whom gossip has met may be of
 * another cluster, or nobody's: its word alone ends no start, only that of all who can be asked, again and again.
 */
export async function joinCluster(
  port: JoinPort,
  options: {
    /** Asked before each round: gossip may have found more. */
    readonly seeds: () => readonly string[];
    /** The configuration names it. Default: all are. */
    readonly isTold?: (seed: string) => boolean;
    readonly clusterId: string;
    readonly member: Member;
    readonly signal: AbortSignal;
  },
): Promise<readonly Member[]> {
  const { seeds, clusterId, member, signal, isTold = () => true } = options;
  const waiting = new WaitingNews(port);
  let refusedRounds = 0;
  for (;;) {
    const asked = seeds();
    let said = asked.length === 0 ? 'nobody is found yet' : '';
    let refusal: string | null = null;
    let areAllSure = asked.length > 0;
    for (const seed of asked) {
      // A seed list is often the same on all nodes.
      if (seed === member.grpc && asked.length > 1) continue;
      signal.throwIfAborted();
      const answer = await port.ask(seed, clusterId, member, signal);
      signal.throwIfAborted();
      if (answer.kind === 'joined') return answer.members;
      if (answer.kind === 'refused') {
        refusal = `${seed} says ${answer.reason}: ${answer.message} (this node is ${member.node}/${member.instance})`;
        if (isTold(seed)) throw new StartError('JOIN_REFUSED', refusal);
      }
      // A member of another cluster says nothing of this one.
      if (answer.kind !== 'refused' || answer.reason === 'CLUSTER_MISMATCH') areAllSure = false;
      said = `${seed}: ${answer.message}`;
    }
    refusedRounds = areAllSure && refusal !== null ? refusedRounds + 1 : 0;
    if (refusal !== null && refusedRounds >= REFUSED_ROUNDS_MAX) throw new StartError('JOIN_REFUSED', refusal);
    await waiting.again(
      'waiting for a member of the cluster to take this node in',
      { seeds: asked.join(), said },
      asked.length === 0
        ? CHECK_GOSSIP
        : 'whether a member runs at one of these addresses, and its gRPC port is reached from here',
      signal,
    );
    signal.throwIfAborted();
  }
}
