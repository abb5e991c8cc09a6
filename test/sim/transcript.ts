import { AssertionError } from '../../src/base/assert.ts';
import type { ConfigChangeKind } from '../../src/raft/config-change.ts';
import { RaftCore } from '../../src/raft/core.ts';
import { MemoryRaftStorage } from '../../src/raft/memory-storage.ts';
import { type Entry, type Message, makeMessage, type NodeId, type Ready } from '../../src/raft/messages.ts';
import type { RaftOptions } from '../../src/raft/options.ts';
import { formatEntry, formatMessage, formatPeer, formatReady, formatState } from './transcript-format.ts';
import { MemberTable, showCommit, showVote } from './transcript-tables.ts';

/**
 * Runs text transcripts of a group of cores. A file is a list of blocks, separated by empty lines:
 *
 *     # comment: what is shown, and where the rule comes from
 *     # seen: what some line of the output must contain    # never: what none may (transcript-claims.ts)
 *     command
 *     ----
 *     expected output
 *
 * Nothing happens by itself: messages wait in one mail box until they are delivered, time moves by ticks, and with
 * `take`, `persist` and `apply` even a node's own write and its state machine are single steps.
 *
 *   add-nodes a b c [learners=d] [outside=e] [log=1,1,2] [inflight=N] [append-bytes=N] [uncommitted-bytes=N]
 *                                    a group; log = terms of the entries after the bootstrap position 1
 *   set-log NODE [TERMS]             starts a node over with this log (nothing of it committed)
 *   campaign NODE                    tick NODE COUNT            tick-until NODE ROLE
 *   propose NODE TEXT                change NODE KIND NODE      transfer NODE NODE
 *   forget-leader NODE               read NODE NUMBER           unreachable NODE NODE
 *   snapshot-report NODE NODE delivered|failed
 *   take NODE      one Ready, its write stays under way        persist NODE   ends the oldest write
 *   apply NODE     all that was handed out                     ready NODE     all three, once
 *   deliver NODE [from=] [type=] [count=]    drop NODE [from=] [type=] [count=]    mail (shows what waits)
 *   stabilize [NODE ...]   Readies and mail of these nodes (all) until nothing is left; `quietly` in front hides output
 *   elect NODE NODE...    pre-vote and vote of the first one among these; its appends stay in the mail
 *   install NODE INDEX TERM    a snapshot that the last leader heard did not send itself
 *   tell-refusal FROM TO       a refusal that waits for FROM's writes arrives nevertheless
 *   log NODE       status NODE       states       compact NODE INDEX      restart NODE
 *   wipe NODE      starts it over as a node that was never a member
 * and, without any node: commit, vote, members, member (transcript-tables.ts)
 */
export interface Block {
  readonly comment: readonly string[];
  readonly command: string;
  readonly expected: string;
}

export function parseTranscript(text: string): Block[] {
  const blocks: Block[] = [];
  for (const part of text.split(/\n{2,}/)) {
    const lines = part.split('\n').filter((line) => line !== '');
    const comment = lines.filter((line) => line.startsWith('#'));
    const rest = lines.slice(comment.length);
    if (rest.length === 0) {
      blocks.push({ comment, command: '', expected: '' });
      continue;
    }
    const bar = rest.indexOf('----');
    const end = bar < 0 ? rest.length : bar;
    blocks.push({ comment, command: rest.slice(0, end).join('\n'), expected: rest.slice(end + 1).join('\n') });
  }
  return blocks.filter((block) => block.command !== '' || block.comment.length > 0);
}

export function formatTranscript(blocks: readonly Block[]): string {
  const texts = blocks.map(({ comment, command, expected }) =>
    command === ''
      ? comment.join('\n')
      : [...comment, command, '----', ...(expected === '' ? [] : [expected])].join('\n'),
  );
  return `${texts.join('\n\n')}\n`;
}

interface TranscriptNode {
  core: RaftCore;
  storage: MemoryRaftStorage;
  options: Partial<RaftOptions>;
  writes: Ready[];
  toApply: Entry[];
}

function listOf(options: ReadonlyMap<string, string>, key: string): string[] {
  return (options.get(key) ?? '').split(',').filter((word) => word !== '');
}

const ELECTION_TICKS = 10;
const HEARTBEAT_TICKS = 1;
/** A transcript that does not come to rest is wrong. */
const ROUNDS_MAX = 200;

export class Transcript {
  readonly #nodes = new Map<NodeId, TranscriptNode>();
  #mail: Message[] = [];
  #out: string[] = [];
  readonly #members = new MemberTable();

  run(command: string): string {
    this.#out = [];
    const isQuiet = command.startsWith('quietly ');
    for (const line of command.split('\n')) {
      this.#runLine(line.replace(/^quietly /, ''));
    }
    return isQuiet ? 'ok' : this.#out.join('\n') || 'ok';
  }

  #runLine(line: string): void {
    const words = line.split(' ');
    const [name = '', first = '', second = '', third = ''] = words;
    const options = new Map(
      words.filter((word) => word.includes('=')).map((word) => word.split('=', 2) as [string, string]),
    );
    const names = words.slice(1).filter((word) => !word.includes('='));
    const commands: Record<string, () => void> = {
      'add-nodes': () => this.#addNodes(names, options),
      'set-log': () => this.#setLog(first, second),
      campaign: () => this.#say(this.#core(first).campaign()),
      tick: () => this.#tick(first, Number(second)),
      'tick-until': () => this.#tickUntil(first, second),
      propose: () => this.#say(this.#core(first).propose(new TextEncoder().encode(second)), 'accepted'),
      change: () => this.#change(first, second as ConfigChangeKind, third),
      transfer: () => this.#say(this.#core(first).transferLeadership(second), 'started'),
      'forget-leader': () => this.#core(first).forgetLeader(),
      read: () => this.#say(this.#core(first).readIndex(Number(second)), 'accepted'),
      unreachable: () => this.#core(first).reportUnreachable(second),
      'snapshot-report': () => this.#core(first).reportSnapshot(second, third as 'delivered' | 'failed'),
      take: () => this.#take(first),
      persist: () => this.#persist(first),
      apply: () => this.#apply(first),
      ready: () => this.#ready(first),
      deliver: () => this.#deliver(first, options, false),
      drop: () => this.#deliver(first, options, true),
      mail: () => this.#out.push(...this.#mail.map(formatMessage)),
      stabilize: () => this.#stabilize(names.length > 0 ? names : [...this.#nodes.keys()]),
      elect: () => this.#elect(first, names.slice(1)),
      install: () => this.#install(first, Number(second), Number(third)),
      'tell-refusal': () => this.#tellRefusal(first, second),
      log: () => this.#showLog(first),
      status: () => this.#out.push(...this.#core(first).status().peers.map(formatPeer)),
      states: () => this.#out.push(...[...this.#nodes.values()].map((node) => formatState(node.core.status()))),
      compact: () => this.#compact(first, Number(second)),
      restart: () => this.#restart(first),
      wipe: () => this.#start(first, new MemoryRaftStorage(), this.#node(first).options),
      commit: () => this.#out.push(showCommit(names)),
      vote: () => this.#out.push(showVote(names)),
      members: () => this.#members.set(names, listOf(options, 'learners')),
      member: () => this.#out.push(this.#members.change(first as ConfigChangeKind, second)),
    };
    const run = commands[name];
    if (run === undefined) {
      throw new Error(`unknown command: ${line}`);
    }
    run();
  }

  #say(result: string | null, expected: string | null = null): void {
    if (result !== expected) {
      this.#out.push(`refused: ${result}`);
    }
  }

  #node(id: NodeId): TranscriptNode {
    const node = this.#nodes.get(id);
    if (node === undefined) {
      throw new Error(`unknown node: ${id}`);
    }
    return node;
  }

  #core(id: NodeId): RaftCore {
    return this.#node(id).core;
  }

  #addNodes(names: readonly string[], options: ReadonlyMap<string, string>): void {
    const learners = listOf(options, 'learners');
    const bytes = Number(options.get('append-bytes') ?? 1_000_000);
    const limits = {
      inflightMessagesMax: Number(options.get('inflight') ?? 256),
      appendBytesMax: bytes,
      inflightBytesMax: 100_000_000,
      uncommittedBytesMax: Number(options.get('uncommitted-bytes') ?? 1_000_000),
    };
    for (const id of [...names, ...learners]) {
      this.#start(id, MemoryRaftStorage.bootstrap(names, learners), limits);
      this.#preload(id, listOf(options, 'log').map(Number));
    }
    for (const id of listOf(options, 'outside')) {
      this.#start(id, new MemoryRaftStorage(), limits);
    }
  }

  #start(id: NodeId, storage: MemoryRaftStorage, limits: Partial<RaftOptions>): void {
    const applied = storage.snapshot()?.index ?? 0;
    const seed = id.charCodeAt(0);
    const ticks = { electionTicks: ELECTION_TICKS, heartbeatTicks: HEARTBEAT_TICKS };
    const core = new RaftCore({ ...limits, ...ticks, id, storage, applied, seed });
    this.#nodes.set(id, { core, storage, options: limits, writes: [], toApply: [] });
  }

  #preload(id: NodeId, terms: readonly number[]): void {
    if (terms.length === 0) {
      return;
    }
    const { storage, options } = this.#node(id);
    const first = storage.firstIndex();
    storage.append(terms.map((term, i) => ({ term, index: first + i, type: 0 as const, data: new Uint8Array(0) })));
    storage.setHardState({ term: Math.max(...terms), vote: '', commit: first - 1 });
    this.#start(id, storage, options);
  }

  #setLog(id: NodeId, terms: string): void {
    const { voters, learners } = this.#core(id).configState();
    this.#start(id, MemoryRaftStorage.bootstrap(voters, learners), this.#node(id).options);
    this.#preload(
      id,
      terms
        .split(',')
        .filter((word) => word !== '')
        .map(Number),
    );
  }

  #restart(id: NodeId): void {
    const { storage, options } = this.#node(id);
    this.#start(id, storage, options);
  }

  #tick(id: NodeId, count: number): void {
    for (let i = 0; i < count; i += 1) {
      this.#core(id).tick();
    }
  }

  #tickUntil(id: NodeId, role: string): void {
    const core = this.#core(id);
    for (let i = 0; i < 2 * ELECTION_TICKS && core.role !== role; i += 1) {
      core.tick();
    }
    if (core.role !== role) {
      this.#out.push(`${id} is ${core.role} after ${2 * ELECTION_TICKS} ticks`);
    }
  }

  #change(id: NodeId, kind: ConfigChangeKind, node: NodeId): void {
    this.#say(this.#core(id).proposeConfigChange({ kind, node, context: new Uint8Array(0) }), 'accepted');
  }

  #take(id: NodeId): void {
    const node = this.#node(id);
    const ready = node.core.ready();
    const lines = formatReady(ready);
    this.#out.push(`${id}:${lines.length === 0 ? ' nothing' : ''}`, ...lines.map((line) => `  ${line}`));
    this.#mail.push(...ready.messages);
    node.writes.push(ready);
    node.toApply.push(...ready.committedEntries);
  }

  #persist(id: NodeId): void {
    const node = this.#node(id);
    const ready = node.writes.shift();
    if (ready === undefined) {
      this.#out.push(`${id} has no write under way`);
      return;
    }
    if (ready.hardState !== null) {
      node.storage.setHardState(ready.hardState);
    }
    if (ready.snapshot !== null) {
      node.storage.applySnapshot(ready.snapshot);
    }
    node.storage.append(ready.entries);
    node.core.persisted(ready);
    this.#mail.push(...ready.messagesAfterPersist);
  }

  #apply(id: NodeId): void {
    const node = this.#node(id);
    for (const entry of node.toApply.splice(0)) {
      node.core.appliedTo(entry.index);
    }
  }

  #ready(id: NodeId): void {
    this.#take(id);
    while (this.#node(id).writes.length > 0) {
      this.#persist(id);
    }
    this.#apply(id);
  }

  #deliver(to: NodeId, options: ReadonlyMap<string, string>, isDropped: boolean): void {
    const from = options.get('from');
    const type = options.get('type');
    let left = Number(options.get('count') ?? Number.MAX_SAFE_INTEGER);
    const kept: Message[] = [];
    const taken: Message[] = [];
    for (const message of this.#mail) {
      const isMeant =
        message.to === to && (from ?? message.from) === message.from && (type ?? message.type) === message.type;
      if (isMeant && left > 0) {
        taken.push(message);
        left -= 1;
      } else {
        kept.push(message);
      }
    }
    this.#mail = kept;
    for (const message of taken) {
      this.#out.push(`${isDropped ? 'dropped: ' : ''}${formatMessage(message)}`);
      if (!isDropped) {
        this.#step(message);
      }
    }
  }

  /** A broken invariant stops a node: that is shown, and what comes next is up to the transcript. */
  #step(message: Message): void {
    try {
      this.#core(message.to).step(message);
    } catch (error) {
      if (!(error instanceof AssertionError)) {
        throw error;
      }
      this.#out.push(`${message.to} stops: ${error.message}`);
    }
  }

  #stabilize(ids: readonly NodeId[]): void {
    for (let round = 0; round < ROUNDS_MAX; round += 1) {
      let isQuiet = true;
      for (const id of ids) {
        if (this.#core(id).hasReady()) {
          isQuiet = false;
          this.#ready(id);
        }
      }
      for (const id of ids) {
        if (this.#mail.some((message) => message.to === id && ids.includes(message.from))) {
          isQuiet = false;
          for (const from of ids) {
            this.#deliver(id, new Map([['from', from]]), false);
          }
        }
      }
      if (isQuiet) {
        return;
      }
    }
    throw new Error('the transcript does not come to rest');
  }

  #elect(id: NodeId, voters: readonly NodeId[]): void {
    for (
      let round = 0;
      round < ROUNDS_MAX && this.#core(id).role !== 'leader' && this.#core(id).role !== 'follower';
      round += 1
    ) {
      this.#ready(id);
      for (const voter of voters) {
        this.#deliver(voter, new Map([['from', id]]), false);
        this.#ready(voter);
        this.#deliver(id, new Map([['from', voter]]), false);
      }
    }
    this.#ready(id);
  }

  #install(id: NodeId, index: number, term: number): void {
    const { core } = this.#node(id);
    const snapshot = { index, term, config: core.configState(), ref: 'elsewhere' };
    core.step(makeMessage({ type: 'snapshot', from: core.leader, to: id, term: core.term, snapshot }));
  }

  #tellRefusal(from: NodeId, to: NodeId): void {
    for (const ready of this.#node(from).writes) {
      for (const message of ready.messagesAfterPersist.filter((waiting) => waiting.to === to && waiting.reject)) {
        this.#out.push(formatMessage(message));
        this.#core(to).step(message);
      }
    }
  }

  #showLog(id: NodeId): void {
    const { core, storage } = this.#node(id);
    const { firstIndex, lastIndex, durableIndex } = core.status();
    const durable =
      storage.entries(firstIndex, Math.min(durableIndex, storage.lastIndex()) + 1, Number.MAX_SAFE_INTEGER) ?? [];
    this.#out.push(...durable.map(formatEntry));
    for (let index = durableIndex + 1; index <= lastIndex; index += 1) {
      this.#out.push(`${index}/${core.termAt(index)} not durable`);
    }
  }

  #compact(id: NodeId, index: number): void {
    const { core, storage } = this.#node(id);
    storage.createSnapshot(core.applied, core.configState(), `${id}/${core.applied}`);
    storage.compact(index);
  }
}
