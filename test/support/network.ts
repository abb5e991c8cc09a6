/**
 * A network of its own for the nodes of a cluster: a namespace for each, joined by a bridge in one more, with nftables to drop what passes
 * between two of them. The tests reach all nodes from outside, at one end of a pair of interfaces whose other end is in the bridge.
 *
 * Nothing outlives the test: a namespace is held by a process that reads from a pipe of the test and ends with it, and the interfaces go
 * with their namespaces. The addresses are of the range that is kept for tests of networks (RFC 2544).
 */
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readlinkSync } from 'node:fs';
import { pause } from './until.ts';

const NODE_HOST_FIRST = 11;
const OUTSIDE_HOST = 1;

/** From one node to another; only that direction. */
export interface Cut {
  readonly from: number;
  readonly to: number;
}

export class ClusterNetwork implements AsyncDisposable {
  readonly #net: string;
  readonly #holders: readonly ChildProcess[];
  /** Name of the test's own interface. */
  readonly #link: string;

  private constructor(third: number, holders: readonly ChildProcess[]) {
    this.#net = `198.18.${third}`;
    this.#link = linkOf(third);
    this.#holders = holders;
  }

  /** For so many nodes. Needs what requireTool calls `namespaces`. */
  static async create(nodes: number): Promise<ClusterNetwork> {
    const holders = await Promise.all(Array.from({ length: nodes + 1 }, holdNamespace));
    const third = claimThird(holders[0] as ChildProcess);
    const network = new ClusterNetwork(third, holders);
    try {
      network.#build();
    } catch (error) {
      await network[Symbol.asyncDispose]();
      throw error;
    }
    return network;
  }

  /** Where the test is. */
  get outside(): string {
    return `${this.#net}.${OUTSIDE_HOST}`;
  }

  get subnet(): string {
    return `${this.#net}.0/24`;
  }

  /** IP address of a node, counted from 0. */
  host(node: number): string {
    return `${this.#net}.${NODE_HOST_FIRST + node}`;
  }

  /** What runs a program in the namespace of a node. It turns into the program. */
  under(node: number): string[] {
    return ['nsenter', `--net=${this.#namespace(node + 1)}`, '--'];
  }

  /** Drops these, and with `lossPercent` so many of all packets between nodes; whatever was dropped before passes again. */
  set({ cuts = [], lossPercent = 0 }: { readonly cuts?: readonly Cut[]; readonly lossPercent?: number } = {}): void {
    const rules = cuts.map(({ from, to }) => `ip saddr ${this.host(from)} ip daddr ${this.host(to)} drop`);
    if (lossPercent > 0) {
      const nodes = `{ ${this.#nodes().join(', ')} }`;
      rules.push(`ip saddr ${nodes} ip daddr ${nodes} numgen random mod 100 < ${lossPercent} drop`);
    }
    const lines = ['flush chain bridge cluster cuts', ...rules.map((rule) => `add rule bridge cluster cuts ${rule}`)];
    this.#nft(lines);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // The kernel takes its time to clear away a namespace, and the interface with it.
    spawnSync('ip', ['link', 'del', this.#link], { stdio: 'ignore' });
    await Promise.all(
      this.#holders.map(async (holder) => {
        const ended = once(holder, 'exit');
        holder.stdin?.end();
        await ended;
      }),
    );
  }

  #nodes(): string[] {
    return Array.from({ length: this.#holders.length - 1 }, (_, node) => this.host(node));
  }

  #namespace(holder: number): string {
    return `/proc/${this.#holders[holder]?.pid}/ns/net`;
  }

  #build(): void {
    const outside = this.#link;
    const pid = (holder: number): string => String(this.#holders[holder]?.pid);
    const ip = (holder: number | null, text: string): void => {
      const command = ['ip', ...text.split(' ')];
      if (holder !== null) command.unshift('nsenter', `--net=${this.#namespace(holder)}`, '--');
      execFileSync(command[0] as string, command.slice(1), { stdio: ['ignore', 'ignore', 'inherit'] });
    };
    ip(0, 'link add bridge type bridge');
    ip(0, 'link set bridge up');
    ip(null, `addr add ${this.outside}/24 dev ${outside}`);
    ip(null, `link set ${outside} up`);
    ip(0, 'link set outside master bridge up');
    for (const [node, host] of this.#nodes().entries()) {
      ip(null, `link add node${node} netns ${pid(0)} type veth peer name eth0 netns ${pid(node + 1)}`);
      ip(0, `link set node${node} master bridge up`);
      ip(node + 1, `addr add ${host}/24 dev eth0`);
      ip(node + 1, 'link set eth0 up');
      ip(node + 1, 'link set lo up');
    }
    this.#nft(['add table bridge cluster', 'add chain bridge cluster cuts { type filter hook forward priority 0; }']);
  }

  #nft(lines: readonly string[]): void {
    const options = { input: `${lines.join('\n')}\n`, encoding: 'utf8' } as const;
    const { status, stderr } = spawnSync('nsenter', [`--net=${this.#namespace(0)}`, '--', 'nft', '-f', '-'], options);
    if (status !== 0) throw new Error(`nft: ${stderr}`);
  }
}

/** A process that has a namespace of its own and ends when its standard input does. */
async function holdNamespace(): Promise<ChildProcess> {
  const child = spawn('unshare', ['-n', 'cat'], { stdio: ['pipe', 'ignore', 'inherit'] });
  const own = readlinkSync('/proc/self/ns/net');
  while (readlinkSync(`/proc/${child.pid}/ns/net`) === own) await pause(1);
  return child;
}

function linkOf(third: number): string {
  return `broker-${third}`;
}

/**
 * The third number of addresses that no interface here has. Whoever makes the interface of that name has it: other tests look for one at the same time. Its other
 * end, `outside`, is in the namespace of `holder`.
 */
function claimThird(holder: ChildProcess): number {
  const taken = execFileSync('ip', ['-4', '-o', 'addr'], { encoding: 'utf8' });
  for (let third = 1; third < 255; third++) {
    if (taken.includes(`198.18.${third}.`)) continue;
    const command = `link add ${linkOf(third)} type veth peer name outside netns ${holder.pid}`;
    const { status, stderr } = spawnSync('ip', command.split(' '), { encoding: 'utf8' });
    if (status === 0) return third;
    if (!stderr.includes('File exists')) throw new Error(`ip ${command}: ${stderr}`);
  }
  throw new Error('all networks are taken');
}
