import type { Address } from '../types.ts';
import { isSameAddress } from './addresses.ts';
import { Answers, responseTo, type SendAnswer } from './answers.ts';
import { answerKeyQuery, fittingKeyResponse, INTERNAL_PREFIX } from './key-queries.ts';
import type { LamportClock } from './lamport.ts';
import { OPEN_QUERIES_MAX, QUERY_BYTES_MAX, QUERY_RESPONSE_BYTES_MAX, QUERY_TIMEOUT_MS_MAX } from './limits.ts';
import type { SerfMembers } from './members.ts';
import type { KeyResponse, QueryFilter, QueryMessage, QueryResponseMessage, RelayMessage, Tags } from './messages.ts';
import { isMeant } from './query-filters.ts';
import { RunningQueries } from './running-queries.ts';
import { SeenQueries } from './seen.ts';
import { TagPattern } from './tag-pattern.ts';
import type { QueryRequest, QueryStart, QueryWatcher, SerfPort, SerfRefusal } from './types.ts';

export interface QueriesOptions {
  readonly port: SerfPort;
  readonly node: string;
  readonly members: SerfMembers;
  readonly clock: LamportClock;
  /** Queries of older times are not heard. */
  readonly timeMin: number;
  readonly tags: () => Tags;
  /** Null until memberlist is there. */
  readonly address: () => Address | null;
  readonly send: SendAnswer;
  /** Gossips an encoded query. */
  readonly broadcast: (message: Uint8Array) => void;
}

interface OpenQuery {
  readonly message: QueryMessage;
  readonly deadline: number;
}

const EMPTY = new Uint8Array(0);
const decoder = new TextDecoder();

/** Questions to the cluster, this node's and those of others (hashicorp/serf serf/serf.go Query, handleQuery, serf/internal_query.go). */
export class Queries {
  readonly #options: QueriesOptions;
  readonly #answers: Answers;
  readonly #running = new RunningQueries();
  readonly #seen: SeenQueries;
  /** Told to whoever listens, and not answered yet; oldest first. */
  readonly #open = new Map<number, OpenQuery>();
  #nextHandle = 1;
  #lastTime = 0;

  constructor(options: QueriesOptions) {
    this.#options = options;
    this.#answers = new Answers(options.port, options.send, options.node, options.members);
    this.#seen = new SeenQueries(options.timeMin);
  }

  /** Lamport time of the newest query that was heard. */
  get lastTime(): number {
    return this.#lastTime;
  }

  ask(request: QueryRequest, timeoutMs: number, watcher: QueryWatcher, now: number): QueryStart {
    const { port, node, clock } = this.#options;
    const source = this.#options.address();
    if (source === null) return { refusal: 'NOT_ALIVE' };
    if (this.#running.isFull) return { refusal: 'QUERIES_TOO_MANY' };
    const tags = [...(request.tags ?? [])];
    if (tags.some(([, expression]) => TagPattern.parse(expression) === null))
      return { refusal: 'EXPRESSION_NOT_SUPPORTED' };
    const message: QueryMessage = {
      kind: 'query',
      time: clock.time,
      id: port.random(2 ** 31),
      source,
      sourceNode: node,
      filters: filtersOf(request.nodes ?? [], tags),
      wantsAck: request.wantsAck ?? false,
      noBroadcast: false,
      relayFactor: request.relayFactor ?? 0,
      timeoutMs: Math.min(request.timeoutMs || timeoutMs, QUERY_TIMEOUT_MS_MAX),
      name: request.name,
      payload: request.payload,
    };
    const encoded = port.encode(message);
    if (encoded.length > QUERY_BYTES_MAX) return { refusal: 'QUERY_TOO_LARGE' };
    const handle = this.#running.start(message.time, message.id, now + message.timeoutMs, watcher);
    this.handleQuery(message, now);
    this.#options.broadcast(encoded);
    return { handle };
  }

  end(handle: number): void {
    this.#running.end(handle);
  }

  /** Whether it is to be gossiped on. */
  handleQuery(message: QueryMessage, now: number): boolean {
    const { clock, node } = this.#options;
    clock.witness(message.time);
    if (!this.#seen.add(message.time, message.id, clock.time)) return false;
    this.#lastTime = Math.max(this.#lastTime, message.time);
    // Also if this node is not meant: others have yet to hear of it.
    if (isMeant(message.filters, node, this.#options.tags())) {
      if (message.wantsAck) this.#reply(message, true, EMPTY, now);
      this.#tell(message, now);
    }
    return !message.noBroadcast;
  }

  /** Answers of who is no member do not count: it bounds them, and nobody votes under invented names. */
  handleResponse(message: QueryResponseMessage, now: number): boolean {
    if (this.#options.members.get(message.from) === undefined) return false;
    this.#running.handleResponse(message, now);
    return true;
  }

  handleRelay(message: RelayMessage, now: number): boolean {
    return this.#answers.handleRelay(message, now);
  }

  respond(handle: number, payload: Uint8Array, now: number): SerfRefusal | null {
    const query = this.#open.get(handle);
    if (query === undefined || now > query.deadline) return 'QUERY_CLOSED';
    if (!this.#reply(query.message, false, payload, now)) return 'RESPONSE_TOO_LARGE';
    this.#open.delete(handle);
    return null;
  }

  tick(now: number): void {
    this.#running.tick(now);
    for (const [handle, { deadline }] of this.#open) if (now > deadline) this.#open.delete(handle);
  }

  nextAt(): number {
    return this.#running.nextAt();
  }

  #tell(message: QueryMessage, now: number): void {
    const deadline = now + message.timeoutMs;
    if (message.name.startsWith(INTERNAL_PREFIX)) {
      this.#answerInternal(message, deadline, now);
      return;
    }
    const handle = this.#nextHandle++;
    this.#open.set(handle, { message: { ...message, payload: EMPTY, filters: [] }, deadline });
    for (const oldest of this.#open.keys()) {
      if (this.#open.size <= OPEN_QUERIES_MAX) break;
      this.#open.delete(oldest);
    }
    const { time, name, payload, sourceNode } = message;
    this.#options.port.onEvent({ kind: 'query', handle, time, name, payload, sourceNode, deadline });
  }

  #answerInternal(message: QueryMessage, deadline: number, now: number): void {
    const query = message.name.slice(INTERNAL_PREFIX.length);
    switch (query) {
      case 'conflict':
        this.#answerConflict(message, now);
        return;
      case 'install-key':
      case 'use-key':
      case 'remove-key':
      case 'list-keys':
        answerKeyQuery(this.#options.port, query, message.payload, (response, later) => {
          if ((later ?? now) <= deadline) this.#answerKeys(message, response, later ?? now);
        });
        return;
      default:
        // `ping` wants no more than the acknowledgement; what is unknown gets none either.
        return;
    }
  }

  /** Who is known by that name; nobody is asked about itself. */
  #answerConflict(message: QueryMessage, now: number): void {
    const { members, port } = this.#options;
    const name = decoder.decode(message.payload);
    if (name === this.#options.node) return;
    const member = members.get(name) ?? null;
    this.#reply(message, false, port.encode({ kind: 'conflictResponse', member }), now);
  }

  #answerKeys(message: QueryMessage, response: KeyResponse, now: number): void {
    const { port, node } = this.#options;
    const encoded = (one: KeyResponse): Uint8Array => port.encode(one);
    const fitting = fittingKeyResponse(
      response,
      (one) => port.encode(responseTo(message, node, false, encoded(one))).length,
    );
    this.#reply(message, false, encoded(fitting), now);
  }

  /** False: too large. */
  #reply(query: QueryMessage, isAck: boolean, payload: Uint8Array, now: number): boolean {
    const { port, node } = this.#options;
    const response = responseTo(query, node, isAck, payload);
    const encoded = port.encode(response);
    if (encoded.length > QUERY_RESPONSE_BYTES_MAX) return false;
    const own = this.#options.address();
    if (query.sourceNode === node && own !== null && isSameAddress(query.source, own)) {
      this.handleResponse(response, now);
    } else {
      this.#answers.answer(query, encoded, now);
    }
    return true;
  }
}

function filtersOf(nodes: readonly string[], tags: readonly (readonly [string, string])[]): QueryFilter[] {
  const filters: QueryFilter[] = nodes.length > 0 ? [{ kind: 'nodes', nodes }] : [];
  for (const [tag, expression] of tags) filters.push({ kind: 'tag', tag, expression });
  return filters;
}
