/** tools/porcupine, the checker of linearizability that is written in Go: built once for its sources, and run on histories. */
import { execFile, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { ROOT } from './source-tree.ts';

export interface LinearizabilityViolation {
  readonly rule: 'doubled-id' | 'order' | 'lost' | 'stale-read' | 'one-payload' | 'once' | 'never-none';
  readonly subject: string;
  readonly id: number;
  readonly detail: string;
}

export interface LinearizabilityVerdict {
  readonly operations: number;
  readonly subjects: number;
  readonly ids: number;
  readonly seconds: number;
  readonly violations: readonly LinearizabilityViolation[];
}

const SOURCES = join(ROOT, 'tools', 'porcupine');
const EXIT_LINEARIZABLE = 0;
const EXIT_NOT_LINEARIZABLE = 1;

/** Rejects with what Go says if it cannot be built; `go` is asked for by requireTool. */
export async function checkLinearizability(...paths: readonly string[]): Promise<LinearizabilityVerdict> {
  const { code, out, said } = await run(build(), paths);
  if (code !== EXIT_LINEARIZABLE && code !== EXIT_NOT_LINEARIZABLE) {
    throw new Error(`the checker ended with ${code}: ${said}`);
  }
  return JSON.parse(out) as LinearizabilityVerdict;
}

/** Path of the program. Its name has the hash of its sources: another state of them is built anew. */
function build(): string {
  const hash = createHash('sha256');
  for (const name of readdirSync(SOURCES).sort()) hash.update(name).update(readFileSync(join(SOURCES, name)));
  const folder = join(ROOT, '.cache', 'porcupine');
  const program = join(folder, hash.digest('hex').slice(0, 16));
  if (existsSync(program)) return program;
  mkdirSync(folder, { recursive: true });
  const unfinished = `${program}.${process.pid}`;
  // The Go that is here, or none: another version is not fetched.
  const env = { ...process.env, GOTOOLCHAIN: 'local', GOFLAGS: '-mod=readonly -buildvcs=false', GOWORK: 'off' };
  const built = spawnSync('go', ['build', '-o', unfinished, '.'], { cwd: SOURCES, env, encoding: 'utf8' });
  if (built.error !== undefined) throw built.error;
  if (built.status !== 0) throw new Error(`tools/porcupine cannot be built: ${built.stderr}`);
  renameSync(unfinished, program);
  return program;
}

function run(program: string, paths: readonly string[]): Promise<{ code: number; out: string; said: string }> {
  return new Promise((resolve, reject) => {
    const child = execFile(program, paths, { maxBuffer: 64 << 20 }, (error, out, said) => {
      if (error !== null && typeof error.code === 'string') reject(error);
      else resolve({ code: child.exitCode ?? -1, out, said });
    });
  });
}
