/** The EndpointSlices of one service, as the Kubernetes API tells them (discovery.k8s.io/v1), and the addresses in them. */
import { isIPv4, isIPv6 } from 'node:net';
import { type Endpoint, GOSSIP_PORT } from '../base/endpoint.ts';
import { SEEDS_MAX } from './types.ts';

/** More slices than that have more addresses than are kept. */
export const SLICES_MAX = 200;
/** One more than are told, so that it is seen that there are more. */
const ADDRESSES_MAX = SEEDS_MAX + 1;
/** RFC 1123: what a name of an object may have at the most. */
const NAME_LENGTH_MAX = 253;

export class EndpointSlices {
  readonly #portName: string;
  readonly #byName = new Map<string, readonly Endpoint[]>();

  /** `portName`: of the port that is wanted. */
  constructor(portName: string) {
    this.#portName = portName;
  }

  clear(): void {
    this.#byName.clear();
  }

  /** Takes a slice, new or changed. False: it is none. */
  put(slice: unknown): boolean {
    const name = nameOf(slice);
    if (name === null) return false;
    if (this.#byName.has(name) || this.#byName.size < SLICES_MAX) this.#byName.set(name, this.#addressesOf(slice));
    return true;
  }

  /** False: it is no slice. One that is not known is as good as gone. */
  remove(slice: unknown): boolean {
    const name = nameOf(slice);
    if (name !== null) this.#byName.delete(name);
    return name !== null;
  }

  *addresses(): Generator<Endpoint> {
    let count = 0;
    for (const addresses of this.#byName.values()) {
      for (const address of addresses) {
        if (count === ADDRESSES_MAX) return;
        count += 1;
        yield address;
      }
    }
  }

  /**
   * Whether a pod is ready, or serves, says nothing of its gossip: nodes that wait for each other are neither. Of several addresses of
   * one endpoint only the first is meant to be used (its API reference says so).
   */
  #addressesOf(slice: unknown): readonly Endpoint[] {
    const type = field(slice, 'addressType');
    const isRight = type === 'IPv4' ? isIPv4 : type === 'IPv6' ? isIPv6 : null;
    if (isRight === null) return [];
    const port = this.#portOf(slice);
    const found: Endpoint[] = [];
    for (const endpoint of list(field(slice, 'endpoints'))) {
      const [host] = list(field(endpoint, 'addresses'));
      if (typeof host === 'string' && isRight(host)) found.push({ host, port });
      if (found.length === ADDRESSES_MAX) break;
    }
    return found;
  }

  #portOf(slice: unknown): number {
    const named = list(field(slice, 'ports')).find((port) => field(port, 'name') === this.#portName);
    const port = field(named, 'port');
    return typeof port === 'number' && Number.isInteger(port) && port > 0 && port <= 65_535 ? port : GOSSIP_PORT;
  }
}

function nameOf(slice: unknown): string | null {
  const name = field(field(slice, 'metadata'), 'name');
  return typeof name === 'string' && name !== '' && name.length <= NAME_LENGTH_MAX ? name : null;
}

/** A field of what may be anything. */
export function field(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null && Object.hasOwn(value, name)
    ? (value as Record<string, unknown>)[name]
    : undefined;
}

export function list(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}
