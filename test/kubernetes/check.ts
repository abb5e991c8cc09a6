/** `npm run check:kubernetes`: the manifests on a real control plane, and real brokers in their pods. See HELP below. */
import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { readOptions } from '../support/read-options.ts';
import { isUsable, type Tool } from '../support/tools.ts';
import { controlPlaneBinaries, KWOK } from './control-plane-binaries.ts';
import { moduleFolder, PROMETHEUS_OPERATOR } from './go-tools.ts';
import { OVERLAYS, render } from './rendered.ts';

const HELP = `usage: npm run check:kubernetes -- [options]

Starts a real control plane (etcd, API server, controller manager, scheduler; kwok plays the nodes) in a network namespace of its own, sends
it every overlay of k8s/, and runs the postgres overlay with real brokers on a real PostgreSQL: one process for each pod, in a network
namespace with the pod's address. Checks what may be asked with the token and Role of the brokers, that they find each other and become
ready, an upgrade and its undoing, scaling from three to five and back with three and five voters, a lost volume, and draining machines,
all while messages are published.

The programs are built from their Go modules the first time, which takes a quarter of an hour on two cores; they are kept in
.cache/kubernetes. After that it is some minutes. Needs root, Linux, Go 1.26, openssl.

  --build         only build the programs
  --keep          keep the folder with logs and data
  -h, --help      this text

Exit code: 0 all passed, 1 something failed or cannot be run here, 2 wrong usage.
`;

const NEEDED: readonly Tool[] = ['go-1.26', 'openssl', 'namespaces'];
/** Those that are played by kwok, each in a namespace of its own; the postgres overlay is played by real brokers. */
const CUSTOM_KINDS = ['servicemonitors', 'prometheusrules'];

const { values: options } = readOptions('check:kubernetes', {
  options: {
    build: { type: 'boolean', default: false },
    keep: { type: 'boolean', default: false },
    help: { type: 'boolean', short: 'h', default: false },
  },
});
process.exitCode = await main();

async function main(): Promise<number> {
  if (options.help) {
    process.stdout.write(HELP);
    return 0;
  }
  const missing = NEEDED.filter((tool) => !isUsable(tool));
  if (missing.length > 0) {
    process.stderr.write(`check:kubernetes cannot run here: it needs ${missing.join(', ')}; --help says more\n`);
    return 1;
  }
  const binaries = await controlPlaneBinaries((text) => process.stdout.write(`${text}\n`));
  if (options.build) return 0;
  const folder = mkdtempSync('/var/tmp/broker-kubernetes-');
  try {
    await prepare(folder);
    return await inside(binaries, folder);
  } finally {
    if (options.keep) process.stdout.write(`logs and data: ${folder}\n`);
    else rmSync(folder, { recursive: true, force: true });
  }
}

/** All that needs the network of outside: files of Go modules, and kustomize, which is built. */
async function prepare(folder: string): Promise<void> {
  const overlays = join(folder, 'overlays');
  mkdirSync(overlays);
  for (const overlay of OVERLAYS) {
    const namespace = overlay === 'postgres' ? 'broker' : overlay;
    const text = await render(overlay, { components: ['monitoring'], more: { namespace } });
    writeFileSync(join(overlays, `${overlay}.yaml`), text);
  }
  const next = { images: [{ name: 'broker', newTag: 'next' }] };
  writeFileSync(join(folder, 'next.yaml'), await render('postgres', { components: ['monitoring'], more: next }));
  const five = {
    configMapGenerator: [{ name: 'broker', behavior: 'merge', literals: ['BROKER_RAFT_VOTERS=5'] }],
    replicas: [{ name: 'broker', count: 5 }],
  };
  writeFileSync(join(folder, 'five.yaml'), await render('postgres', { components: ['monitoring'], more: five }));
  const back = { replicas: five.replicas };
  writeFileSync(join(folder, 'five-back.yaml'), await render('postgres', { components: ['monitoring'], more: back }));
  writeFileSync(join(folder, 'recover.yaml'), await render('postgres', { components: ['monitoring', 'recover'] }));
  const definitions = join(await moduleFolder(PROMETHEUS_OPERATOR), 'example', 'prometheus-operator-crd');
  const texts = CUSTOM_KINDS.map((plural) =>
    readFileSync(join(definitions, `monitoring.coreos.com_${plural}.yaml`), 'utf8'),
  );
  writeFileSync(join(folder, 'definitions.yaml'), texts.join('\n---\n'));
  const stages = join(await moduleFolder(KWOK), 'kustomize', 'stage');
  const paths = [
    'node/fast/node-initialize',
    'node/heartbeat/node-heartbeat',
    'pod/fast/pod-ready',
    'pod/fast/pod-delete',
  ];
  const parts = paths.map((path) => readFileSync(join(stages, `${path}.yaml`), 'utf8'));
  writeFileSync(join(folder, 'stages.yaml'), parts.join('\n---\n'));
}

/** In namespaces of its own, so that nothing of it can be seen or be left: with the first process there, all others end. */
function inside(binaries: string, folder: string): Promise<number> {
  const script = fileURLToPath(new URL('check-inside.ts', import.meta.url));
  const spaces = ['--net', '--mount', '--pid', '--fork', '--kill-child', '--mount-proc'];
  const child = spawn('unshare', [...spaces, process.execPath, script, binaries, folder], {
    // It ends when this pipe does, however this process went.
    stdio: ['pipe', 'inherit', 'inherit'],
  });
  const stop = (): void => void child.stdin.end();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, stop);
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('exit', (code) => resolve(code ?? 1));
  });
}
