/** tools/porcupine, the checker of linearizability that is written in Go: built once for its sources, and run on histories. */
import { execFile } from 'node:child_process';
import { goProgram } from './go-program.ts';

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

const EXIT_LINEARIZABLE = 0;
const EXIT_NOT_LINEARIZABLE = 1;

/** Rejects with what Go says if it cannot be built; `go` is asked for by requireTool. */
export async function checkLinearizability(...paths: readonly string[]): Promise<LinearizabilityVerdict> {
  const { code, out, said } = await run(goProgram('porcupine'), paths);
  if (code !== EXIT_LINEARIZABLE && code !== EXIT_NOT_LINEARIZABLE) {
    throw new Error(`the checker ended with ${code}: ${said}`);
  }
  return JSON.parse(out) as LinearizabilityVerdict;
}

function run(program: string, paths: readonly string[]): Promise<{ code: number; out: string; said: string }> {
  return new Promise((resolve, reject) => {
    const child = execFile(program, paths, { maxBuffer: 64 << 20 }, (error, out, said) => {
      if (error !== null && typeof error.code === 'string') reject(error);
      else resolve({ code: child.exitCode ?? -1, out, said });
    });
  });
}
