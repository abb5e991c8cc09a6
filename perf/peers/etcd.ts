/** Where etcd is, for the scenario of that name: puts over gRPC by our own generator. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { inCache, must, outputOf } from './peer.ts';

const VERSION = 'v3.7.3';

/** `$ETCD`, the one in the cache, or the one on the PATH. */
export function etcdBinary(): string | null {
  const candidates = [process.env.ETCD, inCache('bin', 'etcd'), 'etcd'];
  return candidates.find((path) => path !== undefined && outputOf(path, ['--version']) !== null) ?? null;
}

/** Built in an empty module, because its own names replacements that `go install` refuses. */
export function installEtcd(): void {
  const home = inCache('etcd');
  mkdirSync(home, { recursive: true });
  mkdirSync(inCache('bin'), { recursive: true });
  writeFileSync(join(home, 'go.mod'), 'module local/etcd\n\ngo 1.26\n');
  const server = 'go.etcd.io/etcd/server/v3';
  must('go', ['-C', home, 'get', '-tool', `${server}@${VERSION}`]);
  must('go', ['-C', home, 'build', '-trimpath', '-o', inCache('bin', 'etcd'), server], { CGO_ENABLED: '0' });
}
