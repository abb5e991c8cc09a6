/**
 * Stand-ins for the images that ours is made from, under their names, for machines that reach no registry of images: Debian's packages unpacked,
 * with the Node and npm that are here. What they have less than the real ones (users, documentation, most programs) makes the check stricter.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, existsSync, mkdirSync, readdirSync, realpathSync, symlinkSync, writeFileSync } from 'node:fs';
import { delimiter, dirname, join } from 'node:path';
import { type Engine, run, succeed } from './engine.ts';

/** A shell with the usual small programs, and what Node is linked with. */
const PACKAGES = [
  ...['base-files', 'base-passwd', 'libc6', 'libc-bin', 'libgcc-s1', 'libstdc++6', 'dash', 'coreutils', 'debianutils'],
  ...['sed', 'grep', 'findutils', 'libacl1', 'libattr1', 'libgmp10', 'libselinux1', 'libpcre2-8-0', 'libssl3'],
];
const PATH_OF_IMAGES = 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
const CA_FILE = '/etc/ssl/certs/build-ca.crt';

/** `name` is then an image of the engine, with a shell, Node and npm. */
export async function makeNodeBase(engine: Engine, folder: string, name: string): Promise<void> {
  const root = join(folder, 'base');
  for (const part of ['bin', 'sbin', 'lib', 'lib64']) {
    mkdirSync(join(root, 'usr', part), { recursive: true });
    symlinkSync(`usr/${part}`, join(root, part));
  }
  await unpackPackages(folder, root);
  if (!existsSync(join(root, 'bin/sh'))) symlinkSync('dash', join(root, 'usr/bin/sh'));
  await addNode(root);
  await importImage(engine, root, name, ['CMD ["node"]']);
}

async function unpackPackages(folder: string, root: string): Promise<void> {
  const packages = join(folder, 'packages');
  mkdirSync(packages);
  const download = ['download', '-qq', '-o', 'APT::Sandbox::User=root', ...PACKAGES];
  // The lists of a fresh machine are empty.
  if ((await run('apt-get', download, { cwd: packages })).code !== 0) {
    await succeed('apt-get', ['update', '-qq']);
    await succeed('apt-get', download, { cwd: packages });
  }
  const unpack =
    'for p in *.deb; do dpkg-deb --fsys-tarfile "$p" | tar -x --keep-directory-symlink -C "$0" || exit 1; done';
  await succeed('sh', ['-c', unpack, root], { cwd: packages });
}

async function addNode(root: string): Promise<void> {
  const local = join(root, 'usr/local');
  for (const part of ['bin', 'etc', 'lib/node_modules']) mkdirSync(join(local, part), { recursive: true });
  cpSync(process.execPath, join(local, 'bin/node'));
  const npm = realpathSync((await succeed('sh', ['-c', 'command -v npm'])).trim());
  cpSync(dirname(dirname(npm)), join(local, 'lib/node_modules/npm'), { recursive: true });
  symlinkSync('../lib/node_modules/npm/bin/npm-cli.js', join(local, 'bin/npm'));
  writeFileSync(join(local, 'etc/npmrc'), await npmSettings(root));
}

/** Where npm installs from here, and who vouches for that: in the stand-in alone, so that the Dockerfile stays as it is elsewhere. */
async function npmSettings(root: string): Promise<string> {
  // npm finds its settings beside the Node that runs it, which has to be the machine's and not ours in node_modules.
  const path = (process.env.PATH ?? '').split(delimiter).filter((entry) => !entry.includes('node_modules'));
  const env = { PATH: path.join(delimiter) };
  const setting = async (key: string) => (await succeed('npm', ['config', 'get', key], { env, cwd: '/' })).trim();
  const ca = [await setting('cafile'), process.env.NODE_EXTRA_CA_CERTS ?? ''].find((file) => existsSync(file));
  const lines = [`registry=${await setting('registry')}`];
  if (ca !== undefined) {
    mkdirSync(join(root, dirname(CA_FILE)), { recursive: true });
    cpSync(ca, join(root, CA_FILE), { dereference: true });
    lines.push(`cafile=${CA_FILE}`);
  }
  return `${lines.join('\n')}\n`;
}

/** An image of one layer. `changes`: instructions of a Dockerfile. */
export async function importImage(
  engine: Engine,
  root: string,
  name: string,
  changes: readonly string[] = [],
): Promise<void> {
  const tar = spawn('tar', ['-C', root, '-c', ...readdirSync(root)], { stdio: ['ignore', 'pipe', 'inherit'] });
  const ended = once(tar, 'close');
  const flags = [`ENV ${PATH_OF_IMAGES}`, ...changes].flatMap((change) => ['-c', change]);
  await engine.ask(['import', ...flags, '-', name], { input: tar.stdout });
  const [code] = await ended;
  if (code !== 0) throw new Error(`tar of ${root} ended with ${code}`);
}
