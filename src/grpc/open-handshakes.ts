import type { Socket } from 'node:net';
import { assert, defined } from '../base/assert.ts';

/** Connections in the middle of their handshake, by host. Each step costs the same however many there are: strangers decide how many come. */
export class OpenHandshakes {
  readonly #hosts = new Map<Socket, string>();
  /** The oldest first. */
  readonly #byHost = new Map<string, Set<Socket>>();
  /** Hosts by how many they have; no empty ones. */
  readonly #byCount = new Map<number, Set<string>>();
  #most = 0;

  add(socket: Socket, host: string): void {
    assert(!this.#hosts.has(socket), 'a handshake begins once');
    this.#hosts.set(socket, host);
    const sockets = this.#byHost.get(host) ?? new Set();
    this.#byHost.set(host, sockets.add(socket));
    this.#move(host, sockets.size - 1, sockets.size);
    this.#most = Math.max(this.#most, sockets.size);
  }

  /** Done, or gone. */
  delete(socket: Socket): void {
    const host = this.#hosts.get(socket);
    if (host === undefined) return;
    this.#hosts.delete(socket);
    const sockets = defined(this.#byHost.get(host), 'a host is known as long as it has handshakes');
    sockets.delete(socket);
    if (sockets.size === 0) this.#byHost.delete(host);
    this.#move(host, sockets.size + 1, sockets.size);
    if (!this.#byCount.has(this.#most)) this.#most -= 1;
  }

  /** The oldest of a host that has as many as no other; undefined: there is none. */
  oldestOfMost(): Socket | undefined {
    const [host] = this.#byCount.get(this.#most) ?? [];
    const [oldest] = (host === undefined ? undefined : this.#byHost.get(host)) ?? [];
    return oldest;
  }

  #move(host: string, from: number, to: number): void {
    const before = this.#byCount.get(from);
    before?.delete(host);
    if (before?.size === 0) this.#byCount.delete(from);
    if (to === 0) return;
    this.#byCount.set(to, (this.#byCount.get(to) ?? new Set()).add(host));
  }
}
