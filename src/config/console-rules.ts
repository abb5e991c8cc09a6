/** Rules between the keys of the console and others. A part of `RULES`. */
import { type Endpoint, formatEndpoint } from './endpoint.ts';
import type { Rule } from './rules.ts';
import type { Config } from './schema.ts';

/** Only this machine can connect there. */
export function isLoopback({ host }: Pick<Endpoint, 'host'>): boolean {
  return /^(127(\.\d{1,3}){3}|::1|localhost)$/i.test(host);
}

/** By which browsers may call the console: those that the operator gave this node. */
export function hostNames(config: Pick<Config, 'admin' | 'grpc' | 'raft' | 'gossip' | 'console'>): string[] {
  const { admin, grpc, raft, gossip } = config;
  const endpoints = [admin.listen, grpc.listen, grpc.advertise, raft.advertise, gossip.advertise];
  const given = config.console.hosts?.split(',').map((name) => name.trim()) ?? [];
  return [...endpoints.flatMap((endpoint) => (endpoint === null ? [] : [endpoint.host])), ...given];
}

export const CONSOLE_RULES: readonly Rule[] = [
  {
    key: 'console.write',
    text: 'console.write needs access.file, or admin.listen on loopback, such as 127.0.0.1 or [::1]',
    holds: ({ console, access, admin }) => !console.write || access.file !== null || isLoopback(admin.listen),
    against: ({ admin }) => `access.file is not set and admin.listen is ${formatEndpoint(admin.listen)}`,
  },
  {
    key: 'console.write',
    text: 'console.write needs console.enabled',
    holds: (config) => !config.console.write || config.console.enabled,
    against: () => 'that is false',
  },
];
