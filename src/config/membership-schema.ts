/** The keys of nodes that find each other: gossip, discovery, and beginning a cluster of several. A part of `SCHEMA`. */
import { GOSSIP_PORT } from '../base/endpoint.ts';
import {
  boolean,
  choice,
  duration,
  endpoint,
  endpoints,
  integer,
  optionalEndpoint,
  optionalText,
  secretText,
  text,
} from './field.ts';

/** Where seeds of gossip can come from beside `gossip.join`. */
const DISCOVERY_KINDS = ['none', 'dns', 'kubernetes'] as const;

/** Base64 of 16, 24 or 32 bytes in its one canonical spelling, as `serf keygen` writes it. */
const GOSSIP_KEY = /^([\w+/]{21}[AQgw]==|[\w+/]{32}|[\w+/]{42}[AEIMQUYcgkosw048]=)$/;
/** A name of Kubernetes that is one label of DNS (RFC 1123, section 2.1). */
const LABEL = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;
const LABEL_RULE = '1 to 63 lower case letters, digits or "-", with a letter or digit at both ends';

export const BOOTSTRAP_EXPECT = integer({
  min: 0,
  max: 9,
  default: 0,
  defaultText: '0 (off)',
  doc: 'Begin a cluster once gossip sees so many nodes of this `cluster`, this one included: the same number on each of the nodes that are started together, such as 3. The row in the database that they share decides which of them begins it, and the others join it. A node that has state already, or finds the row, begins nothing. It takes the place of `bootstrap`.',
});

export const GOSSIP = {
  enabled: boolean({
    shortName: 'gossip',
    default: false,
    doc: "Tell other nodes, and Serf's own agents, of this one, and learn of them. `gossip.join`, `discovery` and `bootstrap_expect` turn it on too. What it says never changes who votes.",
  }),
  listen: endpoint({
    default: `127.0.0.1:${GOSSIP_PORT}`,
    doc: 'Where nodes exchange gossip: UDP and TCP of one port. It is encrypted only with `gossip.key`.',
  }),
  advertise: optionalEndpoint({
    unset: 'where it listens',
    doc: 'Where others reach `gossip.listen`. Needed with gossip if that is 0.0.0.0 or [::].',
  }),
  join: endpoints({
    unset: 'none',
    port: GOSSIP_PORT,
    doc: 'Gossip addresses of others, of which one that answers is enough; those that do not are asked again. It may name this node itself, so that all nodes can be given the same list.',
  }),
  key: secretText({
    pattern: GOSSIP_KEY,
    rule: 'base64 of 16, 24 or 32 bytes, as `serf keygen` or `openssl rand -base64 32` makes it',
    unset: 'not encrypted',
    doc: 'Key that encrypts gossip (AES-GCM), the same on all nodes: what comes without it is not taken. A node that joins has to show it, also where no gossip runs. Never printed. Give it as a variable or in a file that only the broker can read: flags are seen by every user of the machine.',
  }),
  label: optionalText({
    pattern: /^[\x20-\x7e]{1,255}$/,
    rule: '1 to 255 printable ASCII characters',
    unset: 'none',
    doc: 'Label in front of everything that is sent, the same on all nodes: what carries another label, or none, is not taken. It keeps apart clusters that meet by mistake, and protects from nobody.',
  }),
  profile: choice({
    values: ['lan', 'wan', 'local'],
    default: 'lan',
    doc: 'Timing of probes and rounds, by the names that Serf has for it: `wan` for nodes far from each other, which takes longer to miss one, `local` for nodes of one machine. The same on all nodes.',
  }),
};

export const DISCOVERY = {
  kind: choice({
    shortName: 'discovery',
    values: DISCOVERY_KINDS,
    default: 'none',
    doc: 'Where addresses of other nodes are looked up, beside `gossip.join`: `dns` asks for `discovery.dns_name`, `kubernetes` follows the endpoints of `discovery.kubernetes_service`. Either turns gossip on.',
  }),
  dns_name: optionalEndpoint({
    shortName: 'dns_name',
    unset: 'needed with discovery dns',
    port: GOSSIP_PORT,
    host: 'name',
    doc: 'Name that stands for all nodes, such as that of a headless service. `_gossip._tcp.NAME` is asked for addresses with ports (SRV) first, then NAME itself (A, AAAA) for addresses that all have the port given here. A name that begins with "_" is asked for SRV alone.',
  }),
  dns_servers: endpoints({
    shortName: 'dns_servers',
    unset: 'those of the machine',
    port: 53,
    host: 'address',
    doc: 'DNS servers that are asked for `discovery.dns_name`, by address; the next one if one does not answer. Such as that of a Consul agent, 127.0.0.1:8600.',
  }),
  interval: duration({
    min: '1s',
    max: '1h',
    default: '5s',
    doc: 'Time between two questions to DNS, give or take a fifth. Down: new addresses are found sooner. What was found stays known while DNS does not answer.',
  }),
  kubernetes_service: optionalText({
    shortName: 'kubernetes_service',
    pattern: LABEL,
    rule: LABEL_RULE,
    unset: 'needed with discovery kubernetes',
    doc: 'Service whose endpoints are the nodes. It must be headless and publish addresses that are not ready (`publishNotReadyAddresses`), or nodes that wait for each other never become ready.',
  }),
  kubernetes_namespace: optionalText({
    shortName: 'kubernetes_namespace',
    pattern: LABEL,
    rule: LABEL_RULE,
    unset: 'that of the pod, or of the context in `discovery.kubernetes_config`',
    doc: 'Namespace of `discovery.kubernetes_service`.',
  }),
  kubernetes_port_name: text({
    shortName: 'kubernetes_port_name',
    pattern: LABEL,
    rule: LABEL_RULE,
    default: 'gossip',
    doc: `Name of the gossip port in \`discovery.kubernetes_service\`. Endpoints without a port of this name are taken to have ${GOSSIP_PORT}.`,
  }),
  kubernetes_config: optionalText({
    shortName: 'kubernetes_config',
    pattern: /^[^\0]+$/,
    rule: 'the path of a file',
    isFile: true,
    unset: "the pod's service account",
    doc: 'A kubeconfig that says how to reach the Kubernetes API, for a node that runs outside of it.',
  }),
};
