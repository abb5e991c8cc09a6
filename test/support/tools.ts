/** Programs and rights that not every machine has. A test that needs one is skipped there, loudly: the reason says how to enable it. */
import { spawnSync } from 'node:child_process';
import type { TestContext } from 'node:test';

export type Tool = 'strace' | 'loop-devices' | 'root' | 'tmpfs' | 'openssl' | 'go' | 'namespaces';

const HOW: Readonly<Record<Tool, string>> = {
  strace: 'install strace, and allow ptrace (in a container: --cap-add SYS_PTRACE)',
  'loop-devices': 'run as root on Linux with losetup, mkfs.ext4 and python3 (in a container: --privileged)',
  root: 'run as root',
  tmpfs: 'run as root on Linux (in a container: --cap-add SYS_ADMIN)',
  openssl: 'install openssl',
  go: 'install Go 1.19 or newer (in Debian: golang-go)',
  namespaces:
    'run as root on Linux with ip, nft and nsenter (in Debian: iproute2, nftables, util-linux; in a container: --privileged)',
};

/** True if the tool works here; otherwise the test is marked as skipped and must return at once. */
export function requireTool(t: Pick<TestContext, 'skip'>, tool: Tool): boolean {
  if (isUsable(tool)) return true;
  t.skip(`needs ${tool}: ${HOW[tool]}`);
  return false;
}

/** Whether the tool works here. */
export function isUsable(tool: Tool): boolean {
  const isRoot = process.getuid?.() === 0;
  switch (tool) {
    case 'strace':
      // Runs it, because the program may be there and ptrace forbidden.
      return runs('strace', ['-f', '-o', '/dev/null', '-e', 'inject=fdatasync:delay_enter=1', 'true']);
    case 'loop-devices':
      return isRoot && runs('losetup', ['-f']) && runs('mkfs.ext4', ['-V']) && runs('python3', ['--version']);
    case 'root':
      return isRoot;
    case 'tmpfs':
      return isRoot && process.platform === 'linux' && runs('mount', ['--version']);
    case 'openssl':
      return runs('openssl', ['version']);
    case 'go':
      return runs('go', ['version']);
    case 'namespaces':
      // In a namespace of its own, so that nothing is left of it.
      return isRoot && runs('unshare', ['-n', 'sh', '-ec', NAMESPACES_PROBE]) && runs('nsenter', ['--version']);
  }
}

const NAMESPACES_PROBE = `
  ip link add bridge-probe type bridge
  ip link add probe-a type veth peer name probe-b
  nft add table bridge probe
  nft add chain bridge probe cuts '{ type filter hook forward priority 0; }'
  nft add rule bridge probe cuts numgen random mod 100 '<' 5 drop`;

function runs(program: string, args: readonly string[]): boolean {
  const result = spawnSync(program, args, { stdio: 'ignore' });
  return result.error === undefined && result.status === 0;
}
