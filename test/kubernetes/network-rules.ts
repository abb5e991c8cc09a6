/** Rules over ports: their names, the services in front of them, who may reach them, who scrapes them. */
import { type ContainerPort, type NetworkPolicy, ofKind, type Service } from './rendered.ts';
import { podLabels, type Rule, selects, theStatefulSet, unless } from './rule.ts';
import { brokerOf } from './settings.ts';

/** Ports that are for brokers alone. */
const PEER_PORTS = ['raft', 'gossip', 'gossip-udp'];

const protocolOf = ({ protocol }: { readonly protocol?: string }): string => protocol ?? 'TCP';

const portNames: Rule = {
  name: 'every port has a name, and services name ports of the pod with the same number and protocol',
  problems: (manifests) => {
    const ports = brokerOf(theStatefulSet(manifests)).ports ?? [];
    const services = ofKind(manifests, 'Service');
    return [
      ...unless([ports.every(({ name }) => name !== undefined), 'a port of the pod has no name']),
      ...services.flatMap(({ metadata, spec }) =>
        spec.ports
          .filter((port) => !ports.some((own) => isSame(port, own)))
          .map((port) => `${metadata.name} has ${JSON.stringify(port)}, which is no port of the pod`),
      ),
    ];
  },
};

function isSame(port: Service['spec']['ports'][number], own: ContainerPort): boolean {
  const isNamed = port.name === own.name && port.targetPort === own.name;
  return isNamed && port.port === own.containerPort && protocolOf(port) === protocolOf(own);
}

const services: Rule = {
  name: 'there is a service for clients, and a headless one for peers with every port, ready or not',
  problems: (manifests) => {
    const { spec } = theStatefulSet(manifests);
    const all = ofKind(manifests, 'Service');
    const labels = podLabels(manifests);
    const peers = all.find(({ metadata }) => metadata.name === spec.serviceName);
    const clients = all.filter((service) => service !== peers);
    const ports = (brokerOf(theStatefulSet(manifests)).ports ?? []).map(({ name }) => name);
    const peerPorts = peers?.spec.ports.map(({ name }) => name);
    return unless(
      [selects(spec.selector, labels), 'the StatefulSet selects other pods than it makes'],
      [
        all.every((service) => selects({ matchLabels: service.spec.selector ?? {} }, labels)),
        'a service selects others',
      ],
      [peers?.spec.clusterIP === 'None', `${spec.serviceName} is not headless`],
      [peers?.spec.publishNotReadyAddresses === true, `${spec.serviceName} keeps back who is not ready`],
      [ports.every((name) => peerPorts?.includes(name)), `${spec.serviceName} lacks a port`],
      [clients.length === 1 && clients[0]?.spec.ports.length === 1, 'clients have more, or less, than one port'],
      [clients[0]?.spec.publishNotReadyAddresses !== true, 'clients are sent to brokers that are not ready'],
    );
  },
};

const policies: Rule = {
  name: 'every port has a policy, none lets everybody in, and what is for brokers lets brokers in alone',
  problems: (manifests) => {
    const labels = podLabels(manifests);
    const all = ofKind(manifests, 'NetworkPolicy');
    const ports = brokerOf(theStatefulSet(manifests)).ports ?? [];
    const openings = all.flatMap(openingsOf);
    const uncovered = ports.filter((port) => !openings.some((opening) => isFor(opening, port)));
    const unknown = openings.filter((opening) => !ports.some((port) => isFor(opening, port)));
    const forBrokers = openings.filter(({ port }) => PEER_PORTS.includes(String(port)));
    return unless(
      [uncovered.length === 0, `no policy for ${JSON.stringify(uncovered)}`],
      [unknown.length === 0, `a policy for what is no port: ${JSON.stringify(unknown)}`],
      [all.every(({ spec }) => selects(spec.podSelector, labels)), 'a policy for other pods'],
      [openings.every(({ from }) => from.length > 0 && from.every(isNarrow)), 'a policy that lets everybody in'],
      [
        forBrokers.every(({ from }) => from.every((peer) => isBroker(peer, labels))),
        'not only brokers reach a port of theirs',
      ],
    );
  },
};

type Peer = NonNullable<NetworkPolicy['spec']['ingress'][number]['from']>[number];

interface Opening {
  readonly port: string | number;
  readonly protocol: string;
  readonly from: readonly Peer[];
}

function openingsOf({ spec }: NetworkPolicy): Opening[] {
  return spec.ingress.flatMap(({ from = [], ports = [{ port: 'any' }] }) =>
    ports.map((port) => ({ port: port.port, protocol: protocolOf(port), from })),
  );
}

function isFor(opening: Opening, port: ContainerPort): boolean {
  return opening.port === port.name && opening.protocol === protocolOf(port);
}

function isNarrow({ podSelector, namespaceSelector }: Peer): boolean {
  return [podSelector, namespaceSelector].some((selector) => Object.keys(selector?.matchLabels ?? {}).length > 0);
}

function isBroker({ podSelector, namespaceSelector }: Peer, labels: Readonly<Record<string, string>>): boolean {
  return namespaceSelector === undefined && selects(podSelector, labels);
}

const monitoring: Rule = {
  name: 'what is scraped is one service with that port',
  problems: (manifests) =>
    ofKind(manifests, 'ServiceMonitor').flatMap(({ metadata, spec }) => {
      const found = ofKind(manifests, 'Service').filter((service) =>
        selects(spec.selector, service.metadata.labels ?? {}),
      );
      const ports = found.flatMap((service) => service.spec.ports.map(({ name }) => name));
      return unless(
        [found.length === 1, `${metadata.name} selects ${found.length} services`],
        [spec.endpoints.every(({ port }) => ports.includes(port)), `${metadata.name} scrapes a port that is not there`],
      );
    }),
};

export const NETWORK_RULES: readonly Rule[] = [portNames, services, policies, monitoring];
