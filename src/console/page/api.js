/** Asking the node that the page came from. */

const ANSWER_MS = 8_000;

/** The node answered, and refused. */
export class Refused extends Error {
  /** @param {number} status @param {{ error?: string, next?: string, reason?: string }} said */
  constructor(status, said) {
    super(said.error ?? `HTTP status ${status}`);
    this.status = status;
    this.next = said.next ?? '';
    this.reason = said.reason ?? '';
  }
}

/** Rejects with Refused, or with an error of the network. @param {string} path below /api/v1/ @param {AbortSignal} signal @returns {Promise<any>} */
export async function get(path, signal) {
  return await call(path, { signal: AbortSignal.any([signal, AbortSignal.timeout(ANSWER_MS)]) });
}

/** @typedef {{ mayWrite: boolean, token: string, reason: string, next: string, without: string[], needsLogin: boolean, caller: string }} Session */

/** @returns {Promise<Session>} */
export async function session() {
  return await call('session', { signal: AbortSignal.timeout(ANSWER_MS) });
}

/** Changes something. The token is asked for each time, since the node may have been started anew. @param {string} path @param {object} body @returns {Promise<any>} */
export async function post(path, body) {
  const { token } = await session();
  return await call(path, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', 'X-Broker-Console': token },
    body: JSON.stringify(body),
    signal: AbortSignal.timeout(ANSWER_MS),
  });
}

/** @param {string} path @param {RequestInit} init */
async function call(path, init) {
  const response = await fetch(`/api/v1/${path}`, {
    ...init,
    cache: 'no-store',
    credentials: 'same-origin',
    redirect: 'error',
  });
  const said = await response.json();
  if (!response.ok) throw new Refused(response.status, said);
  return said;
}

/** @param {Record<string, string | number>} parameters those that are empty are left out */
export function query(parameters) {
  const given = Object.entries(parameters).filter(([, value]) => value !== '');
  const text = given.map(([name, value]) => `${name}=${encodeURIComponent(value)}`).join('&');
  return text === '' ? '' : `?${text}`;
}
