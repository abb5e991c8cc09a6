import type { RaftClient } from './raft-client.ts';
import type { ActiveSubject } from './subjects.ts';

/**
 * With peers: the subjects of which the Raft thread tells where the log stands (FromRaft.PROGRESS). What other nodes are given and close of a subject
 * is not seen here otherwise. Of one that is not shared nothing is asked for.
 */
export class Interests {
  readonly #raft: Pick<RaftClient, 'interest'>;
  readonly #followed = new Set<ActiveSubject>();

  constructor(raft: Pick<RaftClient, 'interest'>) {
    this.#raft = raft;
  }

  get size(): number {
    return this.#followed.size;
  }

  /** Somebody waits for what becomes of the subject's ids. */
  begin(subject: ActiveSubject): void {
    if (!subject.isShared || subject.isFollowed) return;
    subject.isFollowed = true;
    this.#followed.add(subject);
    this.#raft.interest(subject.ref, true);
  }

  /** Coarse work: ends what nobody waits for any more, so that readers which come and go cost one record, not one each. */
  sweep(): void {
    for (const subject of this.#followed) if (!subject.isWaitedFor) this.#end(subject);
  }

  /** Subjects are another shard's from now on. */
  drop(subjects: ReadonlySet<ActiveSubject>): void {
    for (const subject of subjects) if (subject.isFollowed) this.#end(subject);
  }

  #end(subject: ActiveSubject): void {
    subject.isFollowed = false;
    this.#followed.delete(subject);
    this.#raft.interest(subject.ref, false);
  }
}
