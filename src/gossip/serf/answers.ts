import type { Address } from '../types.ts';
import { isSameAddress } from './addresses.ts';
import { QUERY_RESPONSE_BYTES_MAX, STRANGER_SENDS_PER_SECOND } from './limits.ts';
import type { SerfMembers } from './members.ts';
import type { QueryMessage, QueryResponseMessage, RelayMessage } from './messages.ts';
import type { SerfMember, SerfPort } from './types.ts';

/** memberlist's newest version, of nodes that know relay messages (serf/query.go relayResponse asks for no less). */
const RELAY_PROTOCOL_MIN = 5;

/** SerfList.sendUserTo */
export type SendAnswer = (to: Address, node: string, payload: Uint8Array) => boolean;

/**
 * Sends answers to queries: straight, and by way of others if the query asks for it. An address that a message names is somebody's word: what does not go to
 * a member's own address is rationed, or a forged query would have every node of a cluster write to a bystander.
 */
export class Answers {
  readonly #port: SerfPort;
  readonly #send: SendAnswer;
  readonly #self: string;
  readonly #members: SerfMembers;
  #strangersSince = Number.NEGATIVE_INFINITY;
  #strangers = 0;

  constructor(port: SerfPort, send: SendAnswer, self: string, members: SerfMembers) {
    this.#port = port;
    this.#send = send;
    this.#self = self;
    this.#members = members;
  }

  /** `encoded`: the response, which the caller has measured. */
  answer(query: QueryMessage, encoded: Uint8Array, now: number): void {
    this.#sendRationed(query.source, query.sourceNode, encoded, now);
    this.#relay(query, encoded);
  }

  /** Carries another's answer to where it belongs. Only answers: this is no post for strangers. */
  handleRelay(message: RelayMessage, now: number): boolean {
    const inner = message.payload.length <= QUERY_RESPONSE_BYTES_MAX ? this.#port.decode(message.payload) : null;
    if (inner?.kind !== 'queryResponse') return false;
    return this.#sendRationed(message.target, message.targetNode, message.payload, now);
  }

  #relay(query: QueryMessage, encoded: Uint8Array): void {
    const { relayFactor } = query;
    // Not worth it in a small cluster.
    if (relayFactor === 0 || this.#members.size < relayFactor + 1) return;
    const payload = this.#port.encode({
      kind: 'relay',
      target: query.source,
      targetNode: query.sourceNode,
      payload: encoded,
    });
    if (payload.length > QUERY_RESPONSE_BYTES_MAX) return;
    const carriers = this.#members.withStatus('alive').filter((member) => this.#mayCarry(member));
    for (let left = relayFactor; left > 0 && carriers.length > 0; left--) {
      const [carrier] = carriers.splice(this.#port.random(carriers.length), 1);
      if (carrier !== undefined) this.#send(carrier.address, carrier.node, payload);
    }
  }

  #mayCarry(member: SerfMember): boolean {
    return member.node !== this.#self && member.versions[1] >= RELAY_PROTOCOL_MIN;
  }

  #sendRationed(to: Address, node: string, payload: Uint8Array, now: number): boolean {
    const known = this.#members.get(node)?.address;
    const isTheirs = known !== undefined && isSameAddress(known, to);
    return (isTheirs || this.#takeRation(now)) && this.#send(to, node, payload);
  }

  #takeRation(now: number): boolean {
    if (now - this.#strangersSince >= 1_000) {
      this.#strangersSince = now;
      this.#strangers = 0;
    }
    this.#strangers++;
    return this.#strangers <= STRANGER_SENDS_PER_SECOND;
  }
}

/** An answer of this node to `query`. */
export function responseTo(
  query: QueryMessage,
  from: string,
  isAck: boolean,
  payload: Uint8Array,
): QueryResponseMessage {
  return { kind: 'queryResponse', time: query.time, id: query.id, from, isAck, payload };
}
