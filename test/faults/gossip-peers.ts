/** The two kinds of nodes that live in one cluster here, ours and real agents, so that a round can do the same to either. */

import type { GossipNode } from '../servers/gossip.ts';
import type { SerfAgent } from '../servers/serf.ts';

/** What one node knows of another. */
export interface Seen {
  readonly status: string;
  /** HOST:PORT */
  readonly address: string;
  readonly tags: Readonly<Record<string, string>>;
}

export interface HeardEvent {
  readonly name: string;
  readonly payload: string;
}

export type KeyStep = 'install' | 'use' | 'remove';

export interface Peer {
  readonly node: string;
  readonly kind: 'ours' | 'agent';
  /** HOST:PORT */
  readonly address: string;
  readonly logs: string;
  /** By name, this one included. */
  view(): Promise<ReadonlyMap<string, Seen>>;
  events(): readonly HeardEvent[];
  event(name: string, payload: string): Promise<void>;
  /** Who answered, by name, with what. */
  query(name: string): Promise<Readonly<Record<string, string>>>;
  /** Rejects if not every node did it. */
  changeKeys(step: KeyStep, key: string): Promise<void>;
  /** The keys that it would start again with, primary first. */
  keys(): readonly string[];
  /** HOST:PORT of whom it would look for if it started again; null: it is told by its flags. */
  remembered(): readonly string[] | null;
  leave(): Promise<void>;
  /** kill -9 */
  kill(): Promise<void>;
  /** On the same address, without being told where the others are. */
  restart(): Promise<void>;
  pause(): void;
  resume(): void;
}

/** What is in a data directory of ours. */
export interface KeptFiles {
  keys(): readonly string[];
  remembered(): readonly string[];
}

export class OurPeer implements Peer {
  readonly kind = 'ours';
  readonly process: GossipNode;
  readonly #kept: KeptFiles;

  constructor(process: GossipNode, kept: KeptFiles) {
    this.process = process;
    this.#kept = kept;
  }

  get node(): string {
    return this.process.node;
  }

  get address(): string {
    return this.process.address;
  }

  get logs(): string {
    return this.process.logs;
  }

  async view(): Promise<ReadonlyMap<string, Seen>> {
    const members = await this.process.members();
    return new Map(
      members.map(({ node, status, address, tags }) => [
        node,
        { status, tags, address: `${address.host}:${address.port}` },
      ]),
    );
  }

  events(): readonly HeardEvent[] {
    return this.process.events;
  }

  async event(name: string, payload: string): Promise<void> {
    const refusal = await this.process.call({ do: 'event', name, payload });
    if (refusal !== null) throw new Error(`the event was refused: ${refusal}`);
  }

  async query(name: string): Promise<Readonly<Record<string, string>>> {
    return (await this.process.query(name)).responses;
  }

  async changeKeys(step: KeyStep, key: string): Promise<void> {
    const wanted = [...(await this.view()).values()].filter(({ status }) => status === 'alive').length;
    const { responses } = await this.process.keys(`${step}-key`, key);
    const done = Object.values(responses).filter((answer) => answer.startsWith('done'));
    if (done.length !== wanted) throw new Error(`${step} of ${wanted}: ${JSON.stringify(responses)}`);
  }

  keys(): readonly string[] {
    return this.#kept.keys();
  }

  remembered(): readonly string[] {
    return this.#kept.remembered();
  }

  async leave(): Promise<void> {
    await this.process.call({ do: 'leave', withinMs: 10_000 });
    await this.process.call({ do: 'stop' });
    await this.process.kill();
  }

  kill(): Promise<void> {
    return this.process.kill();
  }

  restart(): Promise<void> {
    return this.process.restart();
  }

  pause(): void {
    this.process.pause();
  }

  resume(): void {
    this.process.resume();
  }
}

export class AgentPeer implements Peer {
  readonly kind = 'agent';
  readonly process: SerfAgent;

  constructor(process: SerfAgent) {
    this.process = process;
  }

  get node(): string {
    return this.process.node;
  }

  get address(): string {
    return this.process.address;
  }

  get logs(): string {
    return this.process.logs;
  }

  async view(): Promise<ReadonlyMap<string, Seen>> {
    const members = await this.process.members();
    return new Map(members.map(({ name, addr, status, tags }) => [name, { status, address: addr, tags }]));
  }

  events(): readonly HeardEvent[] {
    return this.process.events;
  }

  async event(name: string, payload: string): Promise<void> {
    await this.process.call('event', '-coalesce=false', name, payload);
  }

  async query(name: string): Promise<Readonly<Record<string, string>>> {
    const { Responses } = JSON.parse(await this.process.call('query', '-format=json', '-timeout=1s', name)) as {
      readonly Responses: Readonly<Record<string, string>>;
    };
    return Responses;
  }

  async changeKeys(step: KeyStep, key: string): Promise<void> {
    await this.process.call('keys', `-${step}=${key}`);
  }

  keys(): readonly string[] {
    return this.process.keys;
  }

  remembered(): null {
    return null;
  }

  async leave(): Promise<void> {
    await this.process.call('leave');
    await this.process.kill();
  }

  kill(): Promise<void> {
    return this.process.kill();
  }

  restart(): Promise<void> {
    return this.process.restart();
  }

  pause(): void {
    this.process.pause();
  }

  resume(): void {
    this.process.resume();
  }
}
