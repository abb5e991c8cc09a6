/** Programs and rights that not every machine has. A test that needs one is skipped there, loudly: the reason says how to enable it. */
import { spawnSync } from 'node:child_process';
import type { TestContext } from 'node:test';

export type Tool =
  | 'strace'
  | 'loop-devices'
  | 'root'
  | 'tmpfs'
  | 'openssl'
  | 'go'
  | 'cc'
  | 'go-1.26'
  | 'namespaces'
  | 'containers'
  | 'docker-compose'
  | 'terminal'
  | 'promtool'
  | 'chromium'
  | 'script';

const HOW: Readonly<Record<Tool, string>> = {
  strace: 'install strace, and allow ptrace (in a container: --cap-add SYS_PTRACE)',
  'loop-devices': 'run as root on Linux with losetup, mkfs.ext4 and python3 (in a container: --privileged)',
  root: 'run as root',
  tmpfs: 'run as root on Linux (in a container: --cap-add SYS_ADMIN)',
  openssl: 'install openssl',
  go: 'install Go 1.19 or newer (in Debian: golang-go)',
  cc: 'install a C compiler with the headers of libc (in Debian: gcc, libc6-dev)',
  'go-1.26': 'install Go 1.26 or newer',
  namespaces:
    'run as root on Linux with ip, nft and nsenter (in Debian: iproute2, nftables, util-linux; in a container: --privileged)',
  'docker-compose': 'install docker-compose',
  terminal: 'install python3 on a Unix',
  promtool: 'install promtool (in Debian: prometheus)',
  chromium: 'install Chromium and a font (in Debian: chromium, fonts-dejavu-core)',
  script: 'install script (in Debian: bsdutils, which is always there)',
  containers:
    'run as root on Debian with dockerd, iptables, unshare, apt-get and dpkg-deb (docker.io, iptables, util-linux; in a container: --privileged)',
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
    case 'cc':
      // The compiler may be there and the headers not.
      return runs('sh', ['-c', 'echo "#include <time.h>" | cc -E -x c -']);
    case 'go-1.26':
      return isGoAtLeast(26);
    case 'namespaces':
      // In a namespace of its own, so that nothing is left of it.
      return isRoot && runs('unshare', ['-n', 'sh', '-ec', NAMESPACES_PROBE]) && runs('nsenter', ['--version']);
    case 'docker-compose':
      return runs('docker-compose', ['version']);
    case 'terminal':
      return runs('python3', ['-c', 'import pty, termios']);
    case 'promtool':
      return runs('promtool', ['--version']);
    case 'chromium':
      return runs('chromium', ['--version']);
    case 'script':
      return runs('script', ['-qec', 'true', '/dev/null']);
    case 'containers':
      return (
        isRoot &&
        runs('dockerd', ['--version']) &&
        runs('iptables', ['--version']) &&
        runs('dpkg-deb', ['--version']) &&
        runs('unshare', ['--mount', '--pid', '--fork', '--mount-proc', 'true'])
      );
  }
}

const NAMESPACES_PROBE = `
  ip link add bridge-probe type bridge
  ip link add probe-a type veth peer name probe-b
  nft add table bridge probe
  nft add chain bridge probe cuts '{ type filter hook forward priority 0; }'
  nft add rule bridge probe cuts numgen random mod 100 '<' 5 drop`;

/** `minor` of Go 1. */
function isGoAtLeast(minor: number): boolean {
  const { stdout, error } = spawnSync('go', ['env', 'GOVERSION'], { encoding: 'utf8' });
  return error === undefined && Number(/^go1\.(\d+)/.exec(stdout)?.[1] ?? 0) >= minor;
}

function runs(program: string, args: readonly string[]): boolean {
  const env = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` };
  const result = spawnSync(program, args, { stdio: 'ignore', env });
  return result.error === undefined && result.status === 0;
}
