/** What `broker config check` looks at beside the values themselves: files, folders, ports. It opens no port and writes nothing. */
import { accessSync, constants, statSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { readMaterial } from '../tls/material.ts';
import { TlsError } from '../tls/tls-error.ts';
import { loadAccessFile } from './access-file.ts';
import { ConfigError } from './config-error.ts';
import { type Endpoint, formatEndpoint, isAnyAddress } from './endpoint.ts';
import { refuseStrangers } from './listener-rules.ts';
import type { LoadedConfig } from './load.ts';
import { advertisedBy, hasGossip, hasPeers } from './membership-rules.ts';
import { allKeys, type Config } from './schema.ts';
import { show } from './sources.ts';
import { tlsFiles } from './tls-rules.ts';

export interface Preflight {
  /** A start would fail: one line each. */
  readonly problems: readonly string[];
  /** It would not, and yet they are hardly meant. */
  readonly warnings: readonly string[];
}

export function preflight(loaded: LoadedConfig): Preflight {
  const { config } = loaded;
  const unread = unreadable(loaded);
  const certificates = certificatesOf(config, unread);
  return {
    problems: [
      ...unread,
      ...certificates.problems,
      ...accessProblems(config),
      ...unusable(config.dataDir),
      ...collisions(config),
    ],
    warnings: [...loaded.warnings, ...certificates.warnings, ...unreachable(config)],
  };
}

/** What the broker would find in the files of `tls.*`. Of those that cannot be read that has been said. */
function certificatesOf(config: Config, unread: readonly string[]): Preflight {
  const files = tlsFiles(config);
  if (files === null || unread.some((line) => line.startsWith('tls.'))) return { problems: [], warnings: [] };
  try {
    return { problems: [], warnings: readMaterial(files, Date.now()).warnings };
  } catch (error) {
    if (!(error instanceof TlsError)) throw error;
    return { problems: [error.message], warnings: [] };
  }
}

/** Files that the broker would read: of certificates and the like. Those of secrets were read already. */
function unreadable({ chosen }: LoadedConfig): string[] {
  return allKeys()
    .filter(({ field }) => field.isFile === true)
    .flatMap(({ key }) => {
      const { value, origin } = chosen.get(key) ?? {};
      if (value === undefined) return [];
      const why = whyNot(String(value), constants.R_OK, 'file');
      return why === null ? [] : [`${key} ${show(value)} (${origin?.place}): cannot be read: ${why}`];
    });
}

/** What is wrong with the access file, if it can be read. */
function accessProblems(config: Config): readonly string[] {
  const { access } = config;
  if (access.file === null || whyNot(access.file, constants.R_OK, 'file') !== null) return [];
  try {
    refuseStrangers(config, loadAccessFile(access.file).policy);
    return [];
  } catch (error) {
    return error instanceof ConfigError ? error.problems : [(error as Error).message];
  }
}

/** The data directory, or the folder in which it would be made. */
function unusable(dataDir: string): string[] {
  let folder = resolve(dataDir);
  while (statSync(folder, { throwIfNoEntry: false }) === undefined && dirname(folder) !== folder) {
    folder = dirname(folder);
  }
  const why = whyNot(folder, constants.R_OK | constants.W_OK | constants.X_OK, 'folder');
  if (why === null) return [];
  return [
    `data_dir ${show(dataDir)}: ${folder === resolve(dataDir) ? '' : `${show(folder)} `}cannot be written: ${why}`,
  ];
}

function whyNot(path: string, mode: number, what: 'file' | 'folder'): string | null {
  try {
    const isFolder = statSync(path).isDirectory();
    if (isFolder !== (what === 'folder')) return isFolder ? 'it is a folder' : 'it is no folder';
    accessSync(path, mode);
    return null;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return 'it does not exist';
    if (code === 'ENOTDIR') return 'there is a file in its way';
    return code === 'EACCES' || code === 'EROFS' ? `this user may not (${code})` : (error as Error).message;
  }
}

/** Pairs of our own ports of which the second could not be opened. Those that are written alike are refused by the rules already. */
function collisions(config: Config): string[] {
  const listeners = (['grpc', 'admin', 'raft', 'gossip'] as const)
    .filter((name) => name !== 'raft' || hasPeers(config))
    .filter((name) => name !== 'gossip' || hasGossip(config))
    .map((name) => ({ name, at: config[name].listen }));
  return listeners.flatMap((one, index) =>
    listeners
      .slice(index + 1)
      .filter((other) => doCollide(one.at, other.at))
      .map(
        (other) =>
          `${other.name}.listen ${formatEndpoint(other.at)}: is taken by ${one.name}.listen ${formatEndpoint(one.at)}`,
      ),
  );
}

function doCollide(left: Endpoint, right: Endpoint): boolean {
  const isSameHost = loopback(left.host) === loopback(right.host) || isAnyAddress(left) || isAnyAddress(right);
  return left.port === right.port && left.port > 0 && isSameHost;
}

function loopback(host: string): string {
  return host === 'localhost' ? '127.0.0.1' : host;
}

function unreachable(config: Config): string[] {
  if (!hasGossip(config) || advertisedBy(config) !== null) return [];
  return [
    'gossip tells nobody where to reach this node: set grpc.advertise and raft.advertise, or listen on one address and a port of your choice',
  ];
}
