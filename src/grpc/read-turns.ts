import type { ServerHttp2Session } from 'node:http2';
import { assert } from '../base/assert.ts';

/** Calls that one connection may begin before others have had their turn. About as many as 64 KiB of small ones are. */
export const CALLS_A_TURN = 256;

/** Between two looks at connections whose clients do not take what was written, in ms. */
const BLOCKED_MS = 10;

/** A TCP or TLS handle of Node: libuv asks it for more until it is told to stop. */
interface Handle {
  readStop(): number;
  readStart(): number;
  /** Bytes that the system has not taken yet. */
  readonly writeQueueSize?: number;
}

/**
 * Turns for connections. As long as there is more to read, libuv reads one socket up to 32 times in a row, 64 KiB each, before it looks at another: a
 * client that sends calls faster than they can be taken keeps all others waiting for 20,000 of them at a time. So a connection with many calls in
 * one turn of the event loop is not read any further before the next turn.
 *
 * Node has no way for this: HTTP/2 takes the handle of the socket for itself. It too stops and starts it, while it cannot write, and a client that takes no
 * answers must stay stopped: so nothing is started here while something waits to be written.
 */
export class ReadTurns {
  #turn = 0;
  #isTurnCounted = false;
  #stopped: Handle[] = [];
  #isRetrying = false;

  /** Which turn of the event loop this is; only turns in which it is asked count. */
  get turn(): number {
    if (!this.#isTurnCounted) {
      this.#isTurnCounted = true;
      setImmediate(this.#onTurn);
    }
    return this.#turn;
  }

  /** Reads nothing more of the connection in this turn. */
  endTurn(session: ServerHttp2Session): void {
    const handle = handleOf(session);
    if (handle === null) return;
    handle.readStop();
    this.#stopped.push(handle);
  }

  readonly #onTurn = (): void => {
    this.#isTurnCounted = false;
    this.#turn += 1;
    this.#start();
  };

  #start(): void {
    if (this.#stopped.length === 0) return;
    const stopped = this.#stopped;
    this.#stopped = [];
    for (const handle of stopped) {
      // One that is closed meanwhile has nothing to write and answers with an error, and that is all.
      if ((handle.writeQueueSize ?? 0) > 0) this.#stopped.push(handle);
      else handle.readStart();
    }
    if (this.#stopped.length === 0 || this.#isRetrying) return;
    this.#isRetrying = true;
    setTimeout(this.#onRetry, BLOCKED_MS).unref();
  }

  readonly #onRetry = (): void => {
    this.#isRetrying = false;
    this.#start();
  };
}

/** Null when it is closed. */
function handleOf({ socket, destroyed }: ServerHttp2Session): Handle | null {
  if (destroyed || socket === undefined || socket.destroyed) return null;
  const handle = (socket as unknown as { readonly _handle?: Handle | null })._handle ?? null;
  if (handle === null) return null;
  assert(typeof handle.readStop === 'function', 'Node has changed: the handle of a socket cannot be stopped');
  return handle;
}
