import { unreachable } from '../base/assert.ts';
import type { Reason } from '../base/errors.ts';
import type { ConfigChangeKind } from '../raft/config-change.ts';
import type { RaftCore } from '../raft/core.ts';
import { type Index, NOBODY, type NodeId } from '../raft/messages.ts';
import { encodeRowChange, isSameRow, type MemberRowChange, type MemberTable } from './member-table.ts';
import type { Member, MemberChange, MemberChangeResult } from './types.ts';

/** What changes of members need of their node. */
export interface ChangesHost {
  readonly core: RaftCore;
  readonly members: MemberTable;
  /** Proposes a row change; its index, or 0 if the core does not take it now. */
  proposeRow(change: MemberRowChange): Index;
  /** Heard of within the last election timeout. */
  isActive(node: NodeId): boolean;
}

export interface ChangeAnswer {
  readonly token: number;
  readonly result: MemberChangeResult;
}

/** What the change that is under way waits for. */
type Step =
  | { readonly wait: 'try'; readonly what: 'row' | 'config' | 'delete' }
  /** Until this index is applied; then comes `next`. */
  | { readonly wait: 'applied'; readonly index: Index; readonly next: 'config' | 'delete' | 'done' }
  | { readonly wait: 'handover'; readonly target: NodeId };

interface Active {
  readonly token: number;
  readonly change: MemberChange;
  step: Step;
  readonly deadline: number;
}

const DONE: MemberChangeResult = { reason: null, message: '' };

/** Changes of the members on the leader, one after the other. */
export class Changes {
  readonly #host: ChangesHost;
  readonly #waitingMax: number;
  readonly #timeoutTicks: number;
  readonly #waiting: { token: number; change: MemberChange }[] = [];
  #active: Active | null = null;
  /** Transfers of the lead behind which nobody is known to lead yet. */
  #handedOver: { readonly token: number; readonly deadline: number }[] = [];
  #answers: ChangeAnswer[] = [];

  constructor(host: ChangesHost, waitingMax: number, timeoutTicks: number) {
    this.#host = host;
    this.#waitingMax = waitingMax;
    this.#timeoutTicks = timeoutTicks;
  }

  get isIdle(): boolean {
    return this.#active === null && this.#waiting.length === 0;
  }
  get hasAnswers(): boolean {
    return this.#answers.length > 0;
  }

  takeAnswers(): ChangeAnswer[] {
    const answers = this.#answers;
    this.#answers = [];
    return answers;
  }

  add(token: number, change: MemberChange, tick: number): void {
    if (this.#host.core.role !== 'leader') this.#answer(token, refused('NOT_LEADER', this.#leaderInWords()));
    else if (this.#waiting.length >= this.#waitingMax)
      this.#answer(token, refused('CHANGE_PENDING', `${this.#waiting.length} changes wait already`));
    else {
      this.#waiting.push({ token, change });
      this.advance(tick);
    }
  }

  /** This node leads no more. */
  lost(): void {
    const active = this.#active;
    if (active !== null) {
      const isHandedOver = active.step.wait === 'handover' && active.change.kind === 'transfer';
      if (isHandedOver) {
        // It is done when somebody leads: whoever asked wants to hear who.
        this.#handedOver.push({ token: active.token, deadline: active.deadline });
        this.#active = null;
      } else this.#end(refused('NOT_LEADER', this.#leaderInWords()));
    }
    for (const { token } of this.#waiting.splice(0)) this.#answer(token, refused('NOT_LEADER', this.#leaderInWords()));
  }

  /** Whenever something was applied, and with every tick. */
  advance(tick: number): void {
    if (this.#handedOver.length > 0) this.#answerHandedOver(tick);
    if (this.#host.core.role !== 'leader') return;
    for (;;) {
      if (this.#active === null) {
        const next = this.#waiting.shift();
        if (next === undefined) return;
        this.#active = { ...next, step: { wait: 'try', what: 'row' }, deadline: tick + this.#timeoutTicks };
        const refusal = this.#begin(this.#active, next.change);
        if (refusal !== null) {
          this.#end(refusal);
          continue;
        }
      }
      const active = this.#active;
      const step = active.step;
      const result = this.#step(active);
      if (result !== null) this.#end(result);
      else if (tick >= active.deadline) this.#end(refused('CHANGE_PENDING', describe(active)));
      else if (active.step === step) return;
    }
  }

  #answerHandedOver(tick: number): void {
    const isLed = this.#host.core.leader !== NOBODY;
    for (const { token } of this.#handedOver.filter(({ deadline }) => isLed || tick >= deadline))
      this.#answer(token, DONE);
    this.#handedOver = this.#handedOver.filter(({ deadline }) => !isLed && tick < deadline);
  }

  /** What stands against it from the start, or null. Sets the first step. */
  #begin(active: Active, change: MemberChange): MemberChangeResult | null {
    const row = this.#host.members.get(change.kind === 'add' ? change.member.node : change.node);
    switch (change.kind) {
      case 'add':
        return this.#beginAdd(active, change.member, row);
      case 'remove':
        return this.#beginRemove(active, change, row);
      case 'promote':
        if (!this.#isMember(change.node)) return refused('MEMBER_UNKNOWN', change.node);
        active.step = { wait: 'try', what: 'config' };
        return null;
      case 'transfer':
        return this.#beginTransfer(active, change.node);
      default:
        return unreachable(change);
    }
  }

  #beginAdd(active: Active, member: Member, row: Member | null): MemberChangeResult | null {
    const isOther = row !== null && row.instance !== member.instance;
    if (isOther && this.#isMember(member.node)) {
      return refused(
        'NODE_ID_TAKEN',
        `${member.node} is instance ${row.instance} at ${row.raft}; \`broker cluster remove ${member.node}\` removes it`,
      );
    }
    // A row without a member is what an unfinished change has left.
    active.step = { wait: 'try', what: isOther ? 'delete' : 'row' };
    if (!isOther && row !== null && isSameRow(row, member)) active.step = { wait: 'try', what: 'config' };
    return null;
  }

  #beginRemove(
    active: Active,
    change: Extract<MemberChange, { kind: 'remove' }>,
    row: Member | null,
  ): MemberChangeResult | null {
    const { node, instance, force } = change;
    if (row === null && !this.#isMember(node)) return refused('MEMBER_UNKNOWN', node);
    if (instance !== '' && row !== null && row.instance !== instance)
      return refused('MEMBER_UNKNOWN', `${node} is instance ${row.instance}, not ${instance}`);
    const voters = this.#host.core.configState().voters;
    if (voters.includes(node)) {
      const left = voters.filter((voter) => voter !== node);
      if (left.length === 0) return refused('QUORUM_AT_RISK', `${node} is the last voter, which is never removed`);
      const active = left.filter((voter) => this.#host.isActive(voter)).length;
      const needed = Math.floor(left.length / 2) + 1;
      if (active < needed && !force) {
        return refused(
          'QUORUM_AT_RISK',
          `without ${node} there are ${left.length} voters, of which ${needed} must be there to decide, and ${active} are heard of now`,
        );
      }
    }
    if (node === this.#host.core.id) return this.#beginTransfer(active, '');
    active.step = { wait: 'try', what: this.#isMember(node) ? 'config' : 'delete' };
    return null;
  }

  #beginTransfer(active: Active, node: NodeId): MemberChangeResult | null {
    const { core } = this.#host;
    if (node === core.id) return DONE;
    if (node !== '' && !this.#isMember(node)) return refused('MEMBER_UNKNOWN', node);
    const target = node === '' ? this.bestVoter() : node;
    if (target === '') return refused('MEMBER_LAGGING', 'no other voter is heard of');
    const result = core.transferLeadership(target);
    if (result === 'not-voter') return refused('MEMBER_NOT_VOTER', target);
    active.step = { wait: 'handover', target };
    return null;
  }

  /** The voter, other than this node, that is heard of and has most of the log; '' if there is none. `among`: only of these. */
  bestVoter(among: readonly NodeId[] | null = null): NodeId {
    let best = '';
    let match = -1;
    for (const peer of this.#host.core.status().peers) {
      if (peer.isLearner || !this.#host.isActive(peer.node) || peer.match <= match) continue;
      if (among !== null && !among.includes(peer.node)) continue;
      best = peer.node;
      match = peer.match;
    }
    return best;
  }

  /** The result, or null while it is under way. */
  #step(active: Active): MemberChangeResult | null {
    const { core } = this.#host;
    const { change, step } = active;
    if (step.wait === 'handover') {
      if (core.status().transferTarget === step.target) return null;
      return refused('MEMBER_LAGGING', `${step.target} did not take over the lead within an election timeout`);
    }
    if (step.wait === 'applied') {
      if (core.applied < step.index) return null;
      if (step.next === 'done') return DONE;
      active.step = { wait: 'try', what: step.next };
      return null;
    }
    if (step.what === 'config') return this.#tryConfig(active);
    const node = change.kind === 'add' ? change.member.node : (change as { node: NodeId }).node;
    if (step.what === 'delete') {
      const index = this.#host.proposeRow({ op: 'delete', node });
      if (index === 0) return null;
      active.step = change.kind === 'add' ? { wait: 'try', what: 'row' } : { wait: 'applied', index, next: 'done' };
      return null;
    }
    if (change.kind !== 'add') return null;
    const index = this.#host.proposeRow({ op: 'set', member: change.member });
    if (index > 0) active.step = { wait: 'applied', index, next: this.#isMember(node) ? 'done' : 'config' };
    return null;
  }

  #tryConfig(active: Active): MemberChangeResult | null {
    const { core } = this.#host;
    const { change } = active;
    const isAdd = change.kind === 'add';
    const node = isAdd ? change.member.node : change.node;
    // `add` of a voter only says where it is: `add-learner` would take its vote.
    if (isAdd && this.#isMember(node)) return DONE;
    const kind: ConfigChangeKind = isAdd ? 'add-learner' : change.kind === 'remove' ? 'remove' : 'add-voter';
    const context = isAdd ? encodeRowChange({ op: 'set', member: change.member }) : new Uint8Array(0);
    const result = core.proposeConfigChange({ kind, node, context });
    switch (result) {
      case 'accepted':
        active.step = {
          wait: 'applied',
          index: core.lastIndex(),
          next: change.kind === 'remove' ? 'delete' : 'done',
        };
        return null;
      case 'pending':
      case 'term-not-committed':
      case 'full':
      case 'transferring':
        return null;
      case 'no-change':
        if (change.kind !== 'remove') return DONE;
        active.step = { wait: 'try', what: 'delete' };
        return null;
      case 'zero-voters':
        return refused('QUORUM_AT_RISK', `${node} is the last voter, which is never removed`);
      case 'not-learner':
        return refused('MEMBER_UNKNOWN', node);
      case 'not-caught-up':
        return refused('MEMBER_LAGGING', node);
      case 'not-leader':
        return refused('NOT_LEADER', this.#leaderInWords());
      case 'exhausted':
        return refused('CHANGE_PENDING', 'the log has no positions left');
      default:
        return unreachable(result);
    }
  }

  #isMember(node: NodeId): boolean {
    const { voters, learners } = this.#host.core.configState();
    return voters.includes(node) || learners.includes(node);
  }

  #leaderInWords(): string {
    const { leader } = this.#host.core;
    return leader === '' ? 'no leader is known' : `the leader is ${leader}`;
  }

  #end(result: MemberChangeResult): void {
    if (this.#active !== null) this.#answer(this.#active.token, result);
    this.#active = null;
  }

  #answer(token: number, result: MemberChangeResult): void {
    this.#answers.push({ token, result });
  }
}

function refused(reason: Reason, message: string): MemberChangeResult {
  return { reason, message };
}

function describe({ change, step }: Active): string {
  const node = change.kind === 'add' ? change.member.node : change.node;
  return `${change.kind} ${node}: ${step.wait === 'applied' ? 'it is in the log and not committed' : 'the change before it is not finished'}`;
}
