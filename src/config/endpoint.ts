import type { Endpoint } from '../base/endpoint.ts';

export { type Endpoint, formatEndpoint, parseEndpoint } from '../base/endpoint.ts';

/** Listening there means every interface of the machine, which tells nobody else where to connect. */
export function isAnyAddress({ host }: Pick<Endpoint, 'host'>): boolean {
  return /^0*(\.0+)*$/.test(host) || (host.includes(':') && /^[0:]+$/.test(host));
}
