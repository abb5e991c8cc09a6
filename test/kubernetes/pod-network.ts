/**
 * A network namespace for each pod, with an address of its own, joined by a bridge of the namespace that the check runs in; and the names
 * that the DNS of a cluster would give them, in a file that stands in for /etc/hosts. It is all gone with the namespaces of the check.
 */
import { execFileSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, readFileSync, realpathSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

export const GATEWAY = '10.244.255.1';
const BRIDGE = 'pods';

export class PodNetwork {
  readonly #names = new Map<string, string>();
  readonly #hosts: string;
  readonly #fixed: string;
  #count = 0;

  /** Needs to be alone in its namespaces for networks and mounts. */
  constructor(folder: string) {
    this.#hosts = join(folder, 'hosts');
    copyFileSync('/etc/hosts', this.#hosts);
    this.#fixed = readFileSync(this.#hosts, 'utf8');
    sh('mount', '--bind', this.#hosts, '/etc/hosts');
    // Nobody answers there, and it is known at once: a question without an answer would hold up a process that ends.
    const resolver = realpathSync('/etc/resolv.conf');
    const silence = join(folder, 'resolv.conf');
    writeFileSync(silence, 'nameserver 127.0.0.1\noptions timeout:1 attempts:1\n');
    // Named namespaces, and the accounts of pods, are kept below it.
    sh('mount', '-t', 'tmpfs', 'tmpfs', '/run');
    if (!existsSync(resolver)) {
      mkdirSync(dirname(resolver), { recursive: true });
      writeFileSync(resolver, '');
    }
    sh('mount', '--bind', silence, resolver);
    sh('ip', 'link', 'set', 'lo', 'up');
    sh('ip', 'link', 'add', BRIDGE, 'type', 'bridge');
    sh('ip', 'addr', 'add', `${GATEWAY}/16`, 'dev', BRIDGE);
    sh('ip', 'link', 'set', BRIDGE, 'up');
  }

  /** A namespace for a pod; what runs a program in it (it turns into the program), and its address, which no pod has had before. */
  add(name: string): { readonly under: readonly string[]; readonly address: string } {
    this.#count += 1;
    const number = this.#count;
    const space = `${name}-${number}`;
    const address = `10.244.${number >> 8}.${number & 255}`;
    const inside = ['ip', '-n', space] as const;
    sh('ip', 'netns', 'add', space);
    sh('ip', 'link', 'add', `pod${number}`, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', space);
    sh('ip', 'link', 'set', `pod${number}`, 'master', BRIDGE, 'up');
    sh(...inside, 'addr', 'add', `${address}/16`, 'dev', 'eth0');
    sh(...inside, 'link', 'set', 'eth0', 'up');
    sh(...inside, 'link', 'set', 'lo', 'up');
    sh(...inside, 'route', 'add', 'default', 'via', GATEWAY);
    return { under: ['nsenter', `--net=/run/netns/${space}`, '--'], address };
  }

  /** What a name means from now on; null: nothing. */
  call(name: string, address: string | null): void {
    if (address === null) this.#names.delete(name);
    else this.#names.set(name, address);
    // In place: another file would not be the one that is mounted.
    writeFileSync(
      this.#hosts,
      `${this.#fixed}\n${[...this.#names].map(([key, value]) => `${value} ${key}\n`).join('')}`,
    );
  }
}

function sh(...[program, ...args]: readonly string[]): void {
  execFileSync(program as string, args, { stdio: ['ignore', 'ignore', 'inherit'] });
}
