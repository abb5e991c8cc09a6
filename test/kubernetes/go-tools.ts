/** Programs and files that come as Go modules, at versions that are written down here and in tools/kubernetes/go.mod. Kept in .cache/kubernetes. */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { ROOT } from '../support/source-tree.ts';

export const CACHE = join(ROOT, '.cache', 'kubernetes');
export const KUBERNETES = 'k8s.io/kubernetes@v1.37.2';
/** The newest of which the module has the definitions of its own kinds. */
export const PROMETHEUS_OPERATOR = 'github.com/prometheus-operator/prometheus-operator@v0.85.0';

const SOURCES = join(ROOT, 'tools', 'kubernetes');
const PACKAGES = {
  kustomize: 'sigs.k8s.io/kustomize/kustomize/v5',
  kubeconform: 'github.com/yannh/kubeconform/cmd/kubeconform',
} as const;
const OUTPUT_BYTES_MAX = 64 << 20;

export interface Ended {
  readonly code: number;
  readonly out: string;
  readonly said: string;
}

/** Runs a program to its end; rejects only if it cannot be started. */
export function run(
  program: string,
  args: readonly string[],
  options: { readonly cwd?: string; readonly env?: NodeJS.ProcessEnv } = {},
): Promise<Ended> {
  return new Promise((resolve, reject) => {
    const child = execFile(program, args, { ...options, maxBuffer: OUTPUT_BYTES_MAX }, (error, out, said) => {
      if (error !== null && typeof error.code === 'string') reject(error);
      else resolve({ code: child.exitCode ?? -1, out, said });
    });
  });
}

/** Rejects with what the program said if it ends with anything but 0. */
export async function runOrFail(...[program, args, options]: Parameters<typeof run>): Promise<string> {
  const { code, out, said } = await run(program, args, options);
  if (code !== 0) throw new Error(`${program} ${args.join(' ')} ended with ${code}: ${said}${out}`);
  return out;
}

/** The Go that is here, or none: another version is not fetched. */
export const goEnvironment = (): NodeJS.ProcessEnv => ({
  ...process.env,
  GOTOOLCHAIN: 'local',
  GOFLAGS: '-buildvcs=false',
  GOWORK: 'off',
  CGO_ENABLED: '0',
});

/** Paths of programs that were built for the versions in go.sum: another state of that file is built anew. */
export async function manifestTools(): Promise<{ readonly kustomize: string; readonly kubeconform: string }> {
  const hash = createHash('sha256')
    .update(readFileSync(join(SOURCES, 'go.sum')))
    .digest('hex');
  const folder = join(CACHE, `manifest-tools-${hash.slice(0, 16)}`);
  if (!existsSync(folder)) {
    const unfinished = `${folder}.${process.pid}`;
    mkdirSync(unfinished, { recursive: true });
    try {
      await buildPrograms(SOURCES, unfinished, Object.values(PACKAGES));
      renameSync(unfinished, folder);
    } finally {
      rmSync(unfinished, { recursive: true, force: true });
    }
  }
  return { kustomize: join(folder, 'kustomize'), kubeconform: join(folder, 'kubeconform') };
}

/** Builds packages that the module in `sources` names into the folder `target`. */
export async function buildPrograms(sources: string, target: string, packages: readonly string[]): Promise<void> {
  const args = ['build', '-mod=readonly', '-trimpath', '-ldflags', '-s -w', '-o', `${target}/`, ...packages];
  await runOrFail('go', args, { cwd: sources, env: goEnvironment() });
}

/** Folder of the files of a module (`path@version`), fetched if need be. */
export async function moduleFolder(module: string): Promise<string> {
  const { code, out, said } = await run('go', ['mod', 'download', '-json', module], {
    cwd: SOURCES,
    env: goEnvironment(),
  });
  const { Dir: folder, Error: problem } = JSON.parse(out || '{}') as { Dir?: string; Error?: string };
  if (code !== 0 || folder === undefined) throw new Error(`${module} cannot be had: ${problem ?? said}`);
  return folder;
}
