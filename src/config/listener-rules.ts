/** What may listen beyond this machine: safe by default (docs/security.md). A part of `RULES`. */
import { isLoopback } from './console-rules.ts';
import { type Endpoint, formatEndpoint } from './endpoint.ts';
import { hasGossip, hasPeers } from './membership-rules.ts';
import type { Rule } from './rules.ts';
import type { Config } from './schema.ts';
import { hasAdminTls, peersTls } from './tls-rules.ts';

/** A listener that others than this machine can reach, and that does not keep strangers out. */
export interface OpenListener {
  readonly key: 'grpc.listen' | 'admin.listen' | 'raft.listen' | 'gossip.listen';
  /** HOST:PORT */
  readonly address: string;
  /** What is to be set, for people. */
  readonly remedy: string;
}

type Listening = Pick<
  Config,
  'grpc' | 'admin' | 'raft' | 'gossip' | 'tls' | 'access' | 'bootstrap' | 'bootstrapExpect' | 'join' | 'discovery'
>;

/** With `insecure` they are allowed. `isClustered`: the data directory says that it has peers, whatever the configuration says. */
export function openListeners(config: Listening, isClustered = false): OpenListener[] {
  const { grpc, admin, raft, gossip, tls, access } = config;
  const peers = peersTls(config);
  const open: OpenListener[] = [];
  const judge = (key: OpenListener['key'], { listen }: { listen: Endpoint }, remedies: readonly string[]): void => {
    if (remedies.length === 0 || isLoopback(listen)) return;
    open.push({ key, address: formatEndpoint(listen), remedy: remedies.join(' and ') });
  };
  const cert = tls.cert === null ? ['set tls.cert and tls.key'] : [];
  const clearText = peers === 'optional' ? ['set tls.peers to required once all nodes speak TLS'] : [];
  const isAsked = tls.clientCerts === 'required' || access.file !== null;
  judge('grpc.listen', grpc, [
    ...cert,
    ...(isAsked ? [] : ['set access.file, or tls.client_certs to required']),
    ...clearText,
  ]);
  judge('admin.listen', admin, [
    ...(hasAdminTls(config) ? [] : [tls.cert === null ? 'set tls.cert and tls.key' : 'set admin.tls to true']),
    // Nobody is asked for a certificate there.
    ...(access.file !== null ? [] : ['set access.file']),
  ]);
  if (isClustered || hasPeers(config)) {
    judge('raft.listen', raft, peers === 'off' ? ['set tls.cert, tls.key and tls.ca'] : clearText);
  }
  if (hasGossip(config) && gossip.key === null) {
    judge('gossip.listen', gossip, ['set gossip.key, the same on all nodes (`openssl rand -base64 32` makes one)']);
  }
  return open;
}

function describe({ key, address, remedy }: OpenListener): string {
  return `${key} ${address} (${remedy})`;
}

export const LISTENER_RULES: readonly Rule[] = [
  {
    key: 'insecure',
    text: 'what listens beyond this machine needs TLS and authentication, or insecure',
    holds: (config) => config.insecure || openListeners(config).length === 0,
    against: (config) => `these are open to strangers: ${openListeners(config).map(describe).join(', ')}`,
  },
];
