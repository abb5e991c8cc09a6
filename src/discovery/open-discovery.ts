/** The source that the configuration names. */
import { defined, unreachable } from '../base/assert.ts';
import type { Config } from '../config/schema.ts';
import { DnsDiscovery } from './dns.ts';
import { KubernetesDiscovery } from './kubernetes.ts';
import type { Discovery, DiscoveryEvents } from './types.ts';

/** What tests replace of the machine. */
export interface DiscoverySurroundings {
  /** Uniform in [0, 1). */
  readonly random?: () => number;
  /** In front of /var/run/secrets/kubernetes.io/serviceaccount, where a pod finds its token. */
  readonly root?: string;
}

/** Null if there is none. It is opened, and has to be started; the rules of the configuration hold, so that nothing is missing. */
export function openDiscovery(
  config: Config['discovery'],
  events: DiscoveryEvents,
  surroundings: DiscoverySurroundings = {},
): Discovery | null {
  const { random = Math.random, root } = surroundings;
  switch (config.kind) {
    case 'none':
      return null;
    case 'dns': {
      const name = defined(config.dnsName, 'a rule of the configuration: dns needs a name');
      const { dnsServers: servers, intervalMs } = config;
      // The search domains of the machine mean nothing to servers that are not its own.
      const resolvConf = servers === null ? '/etc/resolv.conf' : null;
      return new DnsDiscovery({ name, servers, intervalMs, random, resolvConf }, events);
    }
    case 'kubernetes': {
      const service = defined(config.kubernetesService, 'a rule of the configuration: kubernetes needs a service');
      return new KubernetesDiscovery(
        {
          service,
          namespace: config.kubernetesNamespace,
          portName: config.kubernetesPortName,
          configFile: config.kubernetesConfig,
          random,
          ...(root && { root }),
        },
        events,
      );
    }
    default:
      return unreachable(config.kind);
  }
}
