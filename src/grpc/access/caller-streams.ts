import { constants, type ServerHttp2Stream } from 'node:http2';
import type { Verb } from '../../access/caller.ts';
import type { AccessCaller, KnownIdentity } from '../../access/known-identity.ts';
import type { Permissions } from '../../access/permissions.ts';
import type { Reason } from '../../base/errors.ts';
import { watchOf } from '../callers.ts';
import { breakOff } from '../connection-note.ts';
import { type Need, unmet } from './methods.ts';

interface OpenStream {
  readonly stream: ServerHttp2Stream;
  readonly caller: AccessCaller;
  readonly need: Need;
}

/** For the status of a stream that is taken back: with the look that finds the change it is less than the second that is promised. */
const LAST_WORDS_MS = 250;

const VERBS = [
  ['PUBLISH', 'publish'],
  ['SUBSCRIBE', 'subscribe'],
  ['FETCH', 'fetch'],
] as const satisfies readonly (readonly [keyof typeof Verb, keyof Permissions])[];

/** The streams that are open, by who has opened them: they end when their caller may not have them any more. */
export class CallerStreams {
  readonly #byIdentity = new Map<KnownIdentity, Set<OpenStream>>();

  opened(stream: ServerHttp2Stream, caller: AccessCaller, need: Need): void {
    // Gone while its token was verified: nobody would tell of its end any more.
    if (stream.destroyed) return;
    const { known } = caller;
    const open: OpenStream = { stream, caller, need };
    const streams = this.#byIdentity.get(known) ?? new Set();
    this.#byIdentity.set(known, streams.add(open));
    stream.once('close', () => {
      streams.delete(open);
      if (streams.size === 0 && this.#byIdentity.get(known) === streams) this.#byIdentity.delete(known);
    });
  }

  /** Whose streams are open. */
  identities(): Iterable<KnownIdentity> {
    return this.#byIdentity.keys();
  }

  /** Ends those of everybody who may not call at this time (epoch ms). */
  sweep(now: number): void {
    for (const [known, streams] of this.#byIdentity) {
      const reason = known.refusalAt(now);
      if (reason !== null) for (const { stream } of [...streams]) end(stream, reason);
    }
  }

  /** What an identity may do has changed to what it says now. */
  changed(known: KnownIdentity, before: Permissions): void {
    const { permissions } = known.identity;
    const streams = this.#byIdentity.get(known);
    if (streams === undefined || permissions.fingerprint === before.fingerprint) return;
    const narrowed = VERBS.filter(([, verb]) => before.isNarrowedBy(verb, permissions)).map(([name]) => name);
    for (const { stream, caller, need } of [...streams]) {
      const lack = unmet(need, caller);
      if (lack !== null) end(stream, lack);
      else if (watchOf(stream)?.changed(narrowed)) cutSoon(stream);
    }
  }
}

/** What does not answer by itself, such as reflection, is cut off. */
function end(stream: ServerHttp2Stream, reason: Reason): void {
  const watch = watchOf(stream);
  if (watch === null) {
    breakOff(stream, constants.NGHTTP2_CANCEL);
    return;
  }
  watch.ended(reason);
  cutSoon(stream);
}

/** The status waits behind what the client has not read: one that reads nothing would keep its stream, and all that is buffered for it. */
function cutSoon(stream: ServerHttp2Stream): void {
  setTimeout(() => breakOff(stream, constants.NGHTTP2_CANCEL), LAST_WORDS_MS).unref();
}
