import type { Reason } from '../base/errors.ts';
import { NO_SPACE } from '../base/subject-space.ts';

/** What a call wants with a subject. Administration knows no subjects: it is allowed or refused by its method. */
export const Verb = { PUBLISH: 1, SUBSCRIBE: 2, FETCH: 4 } as const;
export type Verb = (typeof Verb)[keyof typeof Verb];

/** Where a call comes from, for what is written down of it. */
export interface CallOrigin {
  /** HOST:PORT */
  readonly peer: string;
}

/** Who calls, as far as the rest of the broker has to know. One object for all calls of an identity. */
export interface Caller {
  /** For logs and people, such as `token ci`; `anonymous` where nobody has to say who they are. */
  readonly name: string;
  /** Whose quotas hold. */
  readonly tenant: string;
  /** Stands in front of each subject and each producer of its tenant inside the broker (space.ts). Empty: they stand for themselves. */
  readonly space: Uint8Array;
  /** May look at the node and the cluster. */
  readonly observes: boolean;
  /** May change them. */
  readonly administers: boolean;
  /** Whether it may do that with the subject bytes[start, end), which is valid and has no space in front. Makes nothing: it is asked for every batch. */
  may(verb: Verb, bytes: Uint8Array, start: number, end: number): boolean;
  /** Whether a pattern may find anything that it may do that with. Each subject that it finds has to be asked for by itself. */
  mayFind(verb: Verb, pattern: Uint8Array): boolean;
  /** `may` for what is refused otherwise: null, or the reason, and then the refusal is noted. `from`: for that; null where it is not at hand. */
  demand(verb: Verb, bytes: Uint8Array, start: number, end: number, from: CallOrigin | null): Reason | null;
}

/** Somebody who has not said who they are, where nobody has to: may do everything, and has the quotas of the tenant that they name. */
export class Anonymous implements Caller {
  readonly name: string;
  readonly space = NO_SPACE;
  readonly tenant: string;
  readonly observes = true;
  readonly administers = true;

  constructor(tenant: string, name = 'anonymous') {
    this.tenant = tenant;
    this.name = name;
  }

  may(): boolean {
    return true;
  }

  mayFind(): boolean {
    return true;
  }

  demand(): Reason | null {
    return null;
  }
}
