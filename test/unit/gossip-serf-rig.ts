import assert from 'node:assert/strict';
import { Prng } from '../../src/base/prng.ts';
import type { QueryMessage, SerfMessage } from '../../src/gossip/serf/messages.ts';
import { Serf } from '../../src/gossip/serf/serf.ts';
import type { SerfEvent, SerfKeyring, SerfList, SerfOptions, SerfPort } from '../../src/gossip/serf/types.ts';
import type { Address, Member, Versions } from '../../src/gossip/types.ts';
import { serfCodec } from '../../src/net/gossip/serf-codec.ts';

export const text = (words: string): Uint8Array => new TextEncoder().encode(words);
export const NO_BYTES = new Uint8Array(0);
export const VERSIONS: Versions = [1, 5, 2, 2, 5, 5];

/** The address of a node of tests: its name is a number behind a letter. */
export function addressOf(node: string): Address {
  return { host: `10.0.0.${Number.parseInt(node.slice(1), 10) || 1}`, port: 7_946 };
}

export function memberOf(node: string, change: Partial<Member> = {}, tags: Record<string, string> = {}): Member {
  return {
    node,
    address: addressOf(node),
    meta: serfCodec.encodeTags(new Map(Object.entries(tags))),
    versions: VERSIONS,
    state: 'alive',
    incarnation: 1,
    ...change,
  };
}

/** memberlist, as far as Serf sees it: what it was told, and what the test has it say. */
export class FakeList implements SerfList {
  readonly calls: string[] = [];
  readonly sent: { readonly to: Address; readonly node: string; readonly payload: Uint8Array }[] = [];
  readonly self: Member;
  joinsPending = 0;
  isLeaveSpread = false;

  constructor(self: Member) {
    this.self = self;
  }

  join(addresses: readonly Address[]): void {
    this.joinsPending += addresses.length;
    this.calls.push(`join ${addresses.map(({ host }) => host).join(' ')}`);
  }

  updateMeta(): void {
    this.calls.push('updateMeta');
  }

  leave(): void {
    this.calls.push('leave');
  }

  sendUserTo(to: Address, node: string, payload: Uint8Array): boolean {
    this.sent.push({ to, node, payload });
    return true;
  }

  /** What was sent since the last time, read. */
  takeSent(): { readonly to: string; readonly node: string; readonly message: SerfMessage | null }[] {
    const taken = this.sent.splice(0);
    return taken.map(({ to, node, payload }) => ({ to: to.host, node, message: serfCodec.decode(payload) }));
  }
}

export interface RigOptions extends Partial<SerfOptions> {
  readonly keyring?: SerfKeyring | null;
  readonly seed?: number;
  /** Also alive from the start. */
  readonly others?: readonly string[];
}

/** One Serf, named a1 if not otherwise, whose time is `now`. */
export class Rig {
  now = 1_000;
  readonly events: SerfEvent[] = [];
  readonly list: FakeList;
  readonly serf: Serf;

  constructor({ keyring = null, seed = 1, others = [], ...options }: RigOptions = {}) {
    const node = options.node ?? 'a1';
    const prng = new Prng(seed);
    const port: SerfPort = {
      ...serfCodec,
      keyring,
      random: (below) => prng.nextBelow(below),
      onEvent: (event) => this.events.push(event),
    };
    this.list = new FakeList(memberOf(node));
    this.serf = new Serf({ node, tags: new Map(), ...options }, port, this.now);
    this.serf.attach(this.list);
    for (const other of others) this.serf.onJoin(memberOf(other), this.now);
    this.events.length = 0;
  }

  /** Hears a message from somebody. */
  hear(message: SerfMessage): void {
    this.serf.onUser(serfCodec.encode(message), this.now);
  }

  /** Time passes, with a tick whenever one is wanted. */
  pass(ms: number): void {
    const end = this.now + ms;
    for (let steps = 0; this.serf.nextAt <= end; steps++) {
      assert.ok(steps < 10_000, 'ticks without end');
      this.now = Math.max(this.now, this.serf.nextAt);
      this.serf.tick(this.now);
    }
    this.now = end;
  }

  /** What waits to be gossiped is gossiped once; what it says. */
  gossip(): SerfMessage[] {
    return this.serf.broadcasts(3, 1_400).map((bytes) => serfCodec.decode(bytes) as SerfMessage);
  }

  /** Nothing waits any more. */
  gossipAll(): SerfMessage[] {
    const messages: SerfMessage[] = [];
    for (let round = this.gossip(); round.length > 0; round = this.gossip()) messages.push(...round);
    return messages;
  }

  status(node: string): string {
    return this.serf.member(node)?.status ?? 'none';
  }

  /** Kinds and names of what was told since the last time. */
  takeEvents(): string[] {
    return this.events.splice(0).map((event) => {
      if ('members' in event) return `${event.kind} ${event.members.map(({ node }) => node).join(' ')}`;
      return 'name' in event ? `${event.kind} ${event.name}` : event.kind;
    });
  }
}

export function queryOf(change: Partial<QueryMessage> = {}): QueryMessage {
  return {
    kind: 'query',
    time: 1,
    id: 77,
    source: addressOf('a2'),
    sourceNode: 'a2',
    filters: [],
    wantsAck: false,
    noBroadcast: false,
    relayFactor: 0,
    timeoutMs: 3_000,
    name: 'uptime',
    payload: NO_BYTES,
    ...change,
  };
}
