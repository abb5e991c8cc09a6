/** Who is logged in. In memory alone: a start ends all sessions. */
import { randomBytes } from 'node:crypto';
import type { AdminRequest } from '../telemetry/admin-http.ts';
import type { ConsoleCaller } from './ports.ts';

const ID_BYTES = 32;
/** The one that was used least lately goes when there are more. */
const SESSIONS_MAX = 256;
const IDLE_MS = 30 * 60_000;
const AGE_MS = 12 * 3_600_000;

interface Session {
  readonly caller: ConsoleCaller;
  readonly openedAt: number;
  usedAt: number;
}

export class ConsoleSessions {
  /** In the order of their last use. */
  readonly #sessions = new Map<string, Session>();
  readonly #now: () => number;

  /** `now`: epoch ms. */
  constructor(now: () => number) {
    this.#now = now;
  }

  /** The value of Set-Cookie. */
  open(caller: ConsoleCaller, isSecure: boolean): string {
    const id = randomBytes(ID_BYTES).toString('base64url');
    const now = this.#now();
    this.#sessions.set(id, { caller, openedAt: now, usedAt: now });
    if (this.#sessions.size > SESSIONS_MAX) {
      const [oldest] = this.#sessions.keys();
      this.#sessions.delete(oldest as string);
    }
    return cookie(id, AGE_MS / 1_000, isSecure);
  }

  /** Who sends this request; null: nobody who is logged in still. */
  of(request: AdminRequest): ConsoleCaller | null {
    const id = idOf(request);
    const session = id === null ? undefined : this.#sessions.get(id);
    if (id === null || session === undefined) return null;
    const now = this.#now();
    this.#sessions.delete(id);
    if (now - session.usedAt > IDLE_MS || now - session.openedAt > AGE_MS || session.caller.refusal !== null)
      return null;
    session.usedAt = now;
    this.#sessions.set(id, session);
    return session.caller;
  }

  /** The value of Set-Cookie. */
  close(request: AdminRequest): string {
    const id = idOf(request);
    if (id !== null) this.#sessions.delete(id);
    return cookie('', 0, request.isSecure);
  }
}

/** A name that browsers take from this host alone, and over TLS alone, where there is TLS. */
function nameOf(isSecure: boolean): string {
  return isSecure ? '__Host-broker' : 'broker';
}

function cookie(id: string, ageSeconds: number, isSecure: boolean): string {
  const secure = isSecure ? '; Secure' : '';
  return `${nameOf(isSecure)}=${id}; Path=/; Max-Age=${ageSeconds}; HttpOnly; SameSite=Strict${secure}`;
}

function idOf({ headers, isSecure }: AdminRequest): string | null {
  const wanted = `${nameOf(isSecure)}=`;
  const found = headers.cookie?.split('; ').filter((one) => one.startsWith(wanted)) ?? [];
  const [first] = found;
  return first === undefined || found.length > 1 ? null : first.slice(wanted.length);
}
