/** tools/memberlist-sim: HashiCorp's own memberlist in virtual time, with one of its members killed. Needs Go 1.25. */
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { goProgram } from './go-program.ts';
import { ROOT } from './source-tree.ts';

export interface MemberlistReport {
  readonly nodes: number;
  readonly lossPercent: number;
  readonly kills: readonly {
    readonly firstMs: number;
    readonly medianMs: number;
    readonly lastMs: number;
    readonly false: number;
  }[];
}

const SAID_MAX = 500;

export interface MemberlistRun {
  readonly nodes: number;
  readonly kills: number;
  readonly lossPercent: number;
}

/** Rejects with what Go says if it cannot be built or run. Takes some seconds a kill. */
export async function killMemberlist({ nodes, kills, lossPercent }: MemberlistRun): Promise<MemberlistReport> {
  const program = goProgram('memberlist-sim', ['test', '-c']);
  const flags = [`-nodes=${nodes}`, `-kills=${kills}`, `-loss=${lossPercent}`];
  const { stdout } = await promisify(execFile)(program, ['-test.run=TestKill', '-test.timeout=0', ...flags]).catch(
    (error: { readonly stdout?: string }) => {
      // Go adds a stack for each of thousands of goroutines.
      throw new Error(`memberlist-sim failed: ${String(error.stdout ?? error).slice(0, SAID_MAX)}`);
    },
  );
  const line = stdout.split('\n').find((text) => text.startsWith('{'));
  if (line === undefined) throw new Error(`no report: ${stdout}`);
  return JSON.parse(line) as MemberlistReport;
}

/** Its version, as tools/memberlist-sim/go.mod asks for it. */
export function memberlistVersion(): string {
  const text = readFileSync(join(ROOT, 'tools', 'memberlist-sim', 'go.mod'), 'utf8');
  return /hashicorp\/memberlist (v[\d.]+)/.exec(text)?.[1] ?? 'unknown';
}
