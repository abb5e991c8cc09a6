/** The programs of a Kubernetes control plane, built from their Go modules once and kept: a quarter of an hour on two cores. */
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { CACHE, goEnvironment, KUBERNETES, moduleFolder, runOrFail } from './go-tools.ts';

const ETCD_VERSION = 'v3.7.3';
export const KWOK = 'sigs.k8s.io/kwok@v0.8.0';
const [, KUBERNETES_VERSION] = KUBERNETES.split('@') as [string, string];
/** Its parts are modules of their own, with a 0 in front of the same numbers. */
const STAGING_VERSION = KUBERNETES_VERSION.replace(/^v1\./, 'v0.');

export const PROGRAMS = [
  'etcd',
  'kube-apiserver',
  'kube-controller-manager',
  'kube-scheduler',
  'kubectl',
  'kwok',
] as const;
type Program = (typeof PROGRAMS)[number];

interface Recipe {
  readonly package: string;
  /** A go.mod without the modules that only others need. */
  readonly module: () => Promise<string>;
  readonly variables: Readonly<Record<string, string>>;
}

const [, MAJOR, MINOR] = /^v(\d+)\.(\d+)\./.exec(KUBERNETES_VERSION) as unknown as [string, string, string];

function recipeOf(program: Program): Recipe {
  switch (program) {
    case 'etcd':
      return simple('go.etcd.io/etcd/server/v3', `go.etcd.io/etcd/server/v3 ${ETCD_VERSION}`);
    case 'kwok':
      return simple('sigs.k8s.io/kwok/cmd/kwok', KWOK.replace('@', ' '));
    default: {
      const version = 'k8s.io/component-base/version';
      return {
        package: `k8s.io/kubernetes/cmd/${program}`,
        module: kubernetesModule,
        // Without it the server calls itself v0.0.0-master.
        variables: {
          [`${version}.gitVersion`]: KUBERNETES_VERSION,
          [`${version}.gitMajor`]: MAJOR,
          [`${version}.gitMinor`]: MINOR,
        },
      };
    }
  }
}

function simple(path: string, requirement: string): Recipe {
  const module = `module broker/control-plane\n\ngo 1.26.0\n\nrequire ${requirement}\n\ntool ${path}\n`;
  return { package: path, module: () => Promise.resolve(module), variables: {} };
}

/** Where it says that its parts lie beside it, they are taken at their versions. */
async function kubernetesModule(): Promise<string> {
  const text = readFileSync(join(await moduleFolder(KUBERNETES), 'go.mod'), 'utf8');
  const parts = [...text.matchAll(/^\s*(k8s\.io\/[a-z-]+) => \.\/staging\//gm)].map((match) => match[1] as string);
  const tools = PROGRAMS.filter((program) => program.startsWith('kube'));
  return [
    'module broker/control-plane\n\ngo 1.26.0\n\ngodebug default=go1.26\n',
    `require ${KUBERNETES.replace('@', ' ')}\n`,
    `tool (\n${tools.map((name) => `\tk8s.io/kubernetes/cmd/${name}\n`).join('')})\n`,
    `replace (\n${parts.map((name) => `\t${name} => ${name} ${STAGING_VERSION}\n`).join('')})\n`,
  ].join('\n');
}

/** Folder of the programs; builds what is missing. `say` is told what is under way. */
export async function controlPlaneBinaries(say: (text: string) => void): Promise<string> {
  const folder = join(CACHE, `control-plane-${KUBERNETES_VERSION}`);
  mkdirSync(folder, { recursive: true });
  const missing = PROGRAMS.filter((program) => !existsSync(join(folder, program)));
  for (const [index, program] of missing.entries()) {
    say(`building ${program}, ${index + 1} of ${missing.length}; kept in ${folder}`);
    await build(program, folder);
  }
  return folder;
}

async function build(program: Program, folder: string): Promise<void> {
  const { package: path, module, variables } = recipeOf(program);
  const sources = join(CACHE, `build-${program}-${process.pid}`);
  mkdirSync(sources, { recursive: true });
  try {
    writeFileSync(join(sources, 'go.mod'), await module());
    const options = { cwd: sources, env: goEnvironment() };
    await runOrFail('go', ['mod', 'tidy'], options);
    const flags = ['-s', '-w', ...Object.entries(variables).map(([name, value]) => `-X ${name}=${value}`)].join(' ');
    await runOrFail('go', ['build', '-trimpath', '-ldflags', flags, '-o', join(sources, program), path], options);
    renameSync(join(sources, program), join(folder, program));
  } finally {
    rmSync(sources, { recursive: true, force: true });
  }
}
