/** Programs of tools/ that are written in Go: built once for their sources. `go` is asked for by requireTool. */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { ROOT } from './source-tree.ts';

/**
 * Path of the program of tools/NAME. Its name has the hash of its sources: another state of them is built anew. `command`: what go is told, before
 * the output. Throws with what Go says if it cannot be built.
 */
export function goProgram(name: string, command: readonly string[] = ['build']): string {
  const sources = join(ROOT, 'tools', name);
  const hash = createHash('sha256');
  for (const file of readdirSync(sources).sort()) hash.update(file).update(readFileSync(join(sources, file)));
  const folder = join(ROOT, '.cache', name);
  const program = join(folder, hash.digest('hex').slice(0, 16));
  if (existsSync(program)) return program;
  mkdirSync(folder, { recursive: true });
  const unfinished = `${program}.${process.pid}`;
  // The Go that is here, or none: another version is not fetched.
  const env = { ...process.env, GOTOOLCHAIN: 'local', GOFLAGS: '-mod=readonly -buildvcs=false', GOWORK: 'off' };
  const built = spawnSync('go', [...command, '-o', unfinished, '.'], { cwd: sources, env, encoding: 'utf8' });
  if (built.error !== undefined) throw built.error;
  if (built.status !== 0) throw new Error(`tools/${name} cannot be built: ${built.stderr}`);
  renameSync(unfinished, program);
  return program;
}
