/** Manifests and markers: what a node reads of a data directory or a backup before anything else. */
import { crc32 } from 'node:zlib';
import { readManifest, writeManifest } from '../../../src/recovery/manifest.ts';
import { Refusal } from '../../../src/recovery/refusal.ts';
import { storeKindOf } from '../../../src/storage/bind-store.ts';
import { readClusterMarker, writeClusterMarker } from '../../../src/storage/cluster-marker.ts';
import { readMarker, writeMarker } from '../../../src/storage/recovery-marker.ts';
import { StartError } from '../../../src/storage/start-error.ts';
import { KeyringFile } from '../../../src/workers/gossip/keyring-file.ts';
import { MemoryDisk } from '../../unit/embedded-memory-disk.ts';
import { accepts, expect, type FuzzTarget } from '../target.ts';

const MIB = 1 << 20;
const ROOT = '/data';
const JSON_WORDS = ['null', 'true', '[]', '{}', '""', '-1', '1e999', '"__proto__":', '"version":', '9007199254740993'];
const isStartError = (error: unknown): boolean => error instanceof StartError;

function diskWith(name: string, bytes: Buffer): MemoryDisk {
  const disk = new MemoryDisk();
  disk.put(`${ROOT}/${name}`, bytes);
  return disk;
}

/** What `write` leaves on a disk. */
function written(name: string, write: (disk: MemoryDisk) => void): Buffer {
  const disk = new MemoryDisk();
  disk.mkdir(ROOT);
  write(disk);
  return disk.bytes(`${ROOT}/${name}`);
}

const MANIFEST = {
  createdAt: '2026-01-01T00:00:00.000Z',
  clusterId: 'c',
  clusterName: 'orders',
  nodeId: 'n',
  store: 'embedded',
  logIndex: 7,
  logTime: 1_700_000_000_000,
  subjects: 1,
  producers: 0,
  files: [
    { path: 'state', bytes: 10, crc32: 5 },
    { path: 'segments/lane-000/00000001.seg', bytes: 512, crc32: 9 },
  ],
} as const;

const manifest: FuzzTarget = {
  name: 'backup-manifest',
  about: 'the manifest of a backup: refused, or one whose files lie inside of its folder',
  memoryBytes: MIB,
  dictionary: [...JSON_WORDS, '..', '/', '"files":', '"path":'],
  seeds: () => [
    written('manifest.json', (disk) => writeManifest(disk, ROOT, MANIFEST)),
    Buffer.from('null'),
    Buffer.from('{}'),
  ],
  repair: (bytes) => {
    let value: unknown;
    try {
      value = JSON.parse(bytes.toString('utf8'));
    } catch {
      return bytes;
    }
    if (typeof value !== 'object' || value === null || Array.isArray(value)) return bytes;
    const { check: _, ...body } = value as { readonly check?: unknown };
    const check = crc32(JSON.stringify(body)).toString(16).padStart(8, '0');
    return Buffer.from(JSON.stringify({ ...body, check }));
  },
  run: (bytes) => {
    const disk = diskWith('manifest.json', bytes);
    return accepts(
      (error) => error instanceof Refusal,
      () => {
        const found = readManifest(disk, ROOT);
        for (const { path, bytes: size, crc32: sum } of found.files) {
          const isInside = !path.startsWith('/') && !path.split('/').includes('..');
          expect(
            isInside && Number.isSafeInteger(size) && Number.isSafeInteger(sum),
            'a file that is none',
            () => path,
          );
        }
      },
    );
  },
};

const MEMBER = { node: 'a', instance: 'i', raft: '10.0.0.1:1', grpc: '10.0.0.1:2', protocol: 1 };
const NODE = { version: 1, clusterId: 'c', clusterName: 'n', nodeId: 'a', instanceId: 'i', createdAt: 't' };
const LOG = { info: () => undefined } as never;

const markers: FuzzTarget = {
  name: 'data-markers',
  about: 'the files CLUSTER, RECOVERY, STORE and keyring.json of a data directory',
  memoryBytes: 4 * MIB,
  dictionary: [
    ...JSON_WORDS,
    'constructor',
    '__proto__',
    'database\n',
    'postgres',
    'cassandra',
    '"state":"joined"',
    '"kind":"restore"',
    '"node":',
  ],
  seeds: () => [
    written('CLUSTER', (disk) => writeClusterMarker(disk, ROOT, { state: 'joined', members: [MEMBER] })),
    written('RECOVERY', (disk) =>
      writeMarker(disk, ROOT, {
        kind: 'recover',
        node: NODE,
        replaces: null,
        discarded: { name: 'x', instanceId: 'y' },
      }),
    ),
    Buffer.from('postgres\n'),
    written('keyring.json', (disk) => new KeyringFile(disk, ROOT).write([Buffer.alloc(32, 1), Buffer.alloc(16, 2)])),
  ],
  run: (bytes) => {
    const isCluster = accepts(isStartError, () => {
      const found = readClusterMarker(diskWith('CLUSTER', bytes), ROOT);
      expect(found === null || Array.isArray(found.members), 'a marker without members');
    });
    const isRecovery = accepts(isStartError, () => {
      const found = readMarker(diskWith('RECOVERY', bytes), ROOT);
      expect(found !== null && typeof found.node.instanceId === 'string', 'a marker without a node', () => found);
      expect(found.replaces === null || typeof found.replaces === 'string', 'a cluster that has no name', () => found);
      const { discarded } = found;
      const isNamed =
        discarded === null || (typeof discarded.name === 'string' && typeof discarded.instanceId === 'string');
      expect(isNamed, 'a discarded log that has no name', () => found);
    });
    const isStore = accepts(isStartError, () => {
      const kind = storeKindOf(diskWith('STORE', bytes), ROOT);
      expect(kind === 'postgres' || kind === 'cassandra', 'a store that is none', () => String(kind));
    });
    const isKeyring = accepts(isStartError, () => {
      const keys = new KeyringFile(diskWith('keyring.json', bytes), ROOT).choose([], LOG);
      expect(
        keys.every(({ length }) => length === 16 || length === 24 || length === 32),
        'a key of another size',
      );
    });
    return isCluster || isRecovery || isStore || isKeyring;
  },
};

export const SMALL_FILE_TARGETS: readonly FuzzTarget[] = [manifest, markers];
