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
  /** Resolves after `ms`, or when the signal is aborted. */
  pause(ms: number, signal: AbortSignal): Promise<void>;
  /** How far it is, for the log. */
  tell(message: string, fields: Readonly<Record<string, string | number>>): void;
}

/** Between two rounds over all seeds. */
const RETRY_MS = 500;
/** How often the log is told that it goes on waiting. */
const TELL_MS = 5_000;

/** Says every few seconds that something is waited for. */
export class WaitingNews {
  readonly #port: Pick<JoinPort, 'pause' | 'tell'>;
  #sinceMs = TELL_MS;

  constructor(port: Pick<JoinPort, 'pause' | 'tell'>) {
    this.#port = port;
  }

  async again(message: string, fields: Readonly<Record<string, string | number>>, signal: AbortSignal): Promise<void> {
    if (this.#sinceMs >= TELL_MS) {
      this.#port.tell(message, fields);
      this.#sinceMs = 0;
    }
    this.#sinceMs += RETRY_MS;
    await this.#port.pause(RETRY_MS, signal);
  }
}

/**
 * Asks one seed after the other to take the node in as a learner, until one has passed that on to the leader; the members that the cluster has then.
 * Asking again is harmless. StartError JOIN_REFUSED for a refusal that lasts; the signal's reason if it is aborted.
 */
export async function joinCluster(
  port: JoinPort,
  options: {
    readonly seeds: readonly string[];
    readonly clusterId: string;
    readonly member: Member;
    readonly signal: AbortSignal;
  },
): Promise<readonly Member[]> {
  const { seeds, clusterId, member, signal } = options;
  const waiting = new WaitingNews(port);
  for (;;) {
    let said = '';
    for (const seed of seeds) {
      // A seed list is often the same on all nodes.
      if (seed === member.grpc && seeds.length > 1) continue;
      signal.throwIfAborted();
      const answer = await port.ask(seed, clusterId, member, signal);
      signal.throwIfAborted();
      if (answer.kind === 'joined') return answer.members;
      if (answer.kind === 'refused') {
        throw new StartError(
          'JOIN_REFUSED',
          `${seed} says ${answer.reason}: ${answer.message} (this node is ${member.node}/${member.instance})`,
        );
      }
      said = `${seed}: ${answer.message}`;
    }
    await waiting.again(
      'waiting for a member of the cluster to take this node in',
      { seeds: seeds.join(), said },
      signal,
    );
    signal.throwIfAborted();
  }
}
