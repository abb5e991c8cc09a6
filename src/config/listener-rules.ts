/** What may listen beyond this machine: safe by default (docs/security.md). A part of `RULES`. */
import type { Policy } from '../access/policy.ts';
import { ConfigError } from './config-error.ts';
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

/** What the configuration alone does not say. */
export interface Found {
  /** The data directory says that the node has peers, whatever the configuration says. */
  readonly isClustered?: boolean;
  /** What the access file gives to those who show nothing. */
  readonly strangers?: Strangers;
}

/** Whoever shows nothing may call something, or look at the node. */
export interface Strangers {
  readonly call: boolean;
  readonly observe: boolean;
}

const NONE: Strangers = { call: false, observe: false };

/** What may be done without a proof is open, however little it is: a file that asks nobody is none. */
export function strangersOf({ anonymous }: Pick<Policy, 'anonymous'>): Strangers {
  if (anonymous === null) return NONE;
  const { allowsAnything: call, observes: observe } = anonymous.permissions;
  return { call, observe };
}

/** With `insecure` they are allowed. */
export function openListeners(
  config: Listening,
  { isClustered = false, strangers = NONE }: Found = {},
): OpenListener[] {
  const { grpc, admin, raft, gossip, tls, access } = config;
  const peers = peersTls(config);
  const open: OpenListener[] = [];
  const judge = (key: OpenListener['key'], { listen }: { listen: Endpoint }, remedies: readonly string[]): void => {
    if (remedies.length === 0 || isLoopback(listen)) return;
    open.push({ key, address: formatEndpoint(listen), remedy: remedies.join(' and ') });
  };
  const cert = tls.cert === null ? ['set tls.cert and tls.key'] : [];
  const clearText = peers === 'optional' ? ['set tls.peers to required once all nodes speak TLS'] : [];
  const isAsked = tls.clientCerts === 'required' || (access.file !== null && !strangers.call);
  const set = (needed: string): string =>
    access.file === null ? `set ${needed}` : 'take from anonymous in access.file what it may do';
  const isClusteredToo = isClustered || hasPeers(config);
  // Whoever is taken into the cluster is sent all of it, whatever the access file says of clients.
  const isJoinOpen = isClusteredToo && peers === 'off' && gossip.key === null;
  judge('grpc.listen', grpc, [
    ...cert,
    ...(isAsked ? [] : [set('access.file, or tls.client_certs to required')]),
    ...(isJoinOpen
      ? ['set tls.ca and leave tls.peers required, or set gossip.key, so that nodes show that they are nodes']
      : []),
    ...clearText,
  ]);
  judge('admin.listen', admin, [
    ...(hasAdminTls(config) ? [] : [tls.cert === null ? 'set tls.cert and tls.key' : 'set admin.tls to true']),
    // Nobody is asked for a certificate there.
    ...(access.file !== null && !strangers.observe ? [] : [set('access.file')]),
  ]);
  if (isClusteredToo) {
    judge('raft.listen', raft, peers === 'off' ? ['set tls.cert, tls.key and tls.ca'] : clearText);
  }
  if (hasGossip(config) && gossip.key === null) {
    judge('gossip.listen', gossip, ['set gossip.key, the same on all nodes (`openssl rand -base64 32` makes one)']);
  }
  return open;
}

/**
 * Whether a node that wants to be taken in has to show that it may: where others are asked who they are. On this machine alone nobody is kept out,
 * as a cluster for development has neither key nor certificates.
 */
export function joinsNeedProof({ access, grpc, raft }: Pick<Config, 'access' | 'grpc' | 'raft'>): boolean {
  return access.file !== null && !(isLoopback(grpc.listen) && isLoopback(raft.listen));
}

/** For an access file that was read, at the start or later. ConfigError if it opens a port beyond this machine that `insecure` does not. */
export function refuseStrangers(config: Listening & Pick<Config, 'insecure'>, policy: Pick<Policy, 'anonymous'>): void {
  const open = config.insecure ? [] : openListeners(config, { strangers: strangersOf(policy) });
  if (open.length === 0) return;
  const problem = `${config.access.file}: anonymous may do something, and beyond this machine that needs insecure: ${open.map(describe).join(', ')}`;
  throw new ConfigError([problem]);
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
