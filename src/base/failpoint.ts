/**
 * Named places where a fault can be made to happen, in the manner of gofail: `site=action[@N][!FILE]`, comma-separated. `@N` acts on the
 * N-th hit only (from 1, each thread counts its own), otherwise on every hit; `!FILE` only as long as that file is not there. Actions: `kill`
 * (SIGKILL to the process), `exit` (of the process, or of the worker thread that hits it), `throw`, `oom` (fills the thread's heap until V8 ends it),
 * `eio`, `enospc`, `sleep:MS` (blocks the thread), `wait:FILE` (blocks the thread until that file exists; a test that knows what has to happen
 * meanwhile needs no guess how long it takes). Unarmed, a site costs one load and one branch.
 */
import { existsSync } from 'node:fs';

type Action = {
  readonly kind: string;
  readonly argument: string;
  readonly onHit: number;
  readonly unless: string;
  hits: number;
};

const FAILPOINT = /^([\w.-]+)=(?:(kill|exit|throw|oom|eio|enospc)|(sleep):(\d+)|(wait):([^@!]+))(?:@(\d+))?(?:!(.+))?$/;

/** How often `wait` looks for its file, in ms. */
const WAIT_STEP_MS = 20;

const state: { armed: Map<string, Action> | null } = { armed: null };

/** Arms the sites of this thread. Called once by each thread's entry point with the value of BROKER_FAILPOINTS; '' disarms. */
export function armFailpoints(spec: string): void {
  state.armed = null;
  if (spec === '') return;
  const armed = new Map<string, Action>();
  for (const part of spec.split(',')) {
    const match = FAILPOINT.exec(part.trim());
    if (match === null) throw new Error(`failpoint: cannot read "${part}"; write site=action[@N][!FILE]`);
    armed.set(match[1] as string, {
      kind: (match[2] ?? match[3] ?? match[5]) as string,
      argument: match[4] ?? match[6] ?? '',
      onHit: Number(match[7] ?? 0),
      unless: match[8] ?? '',
      hits: 0,
    });
  }
  state.armed = armed;
}

/** True if `armFailpoints` can read it. */
export function isFailpointSpec(spec: string): boolean {
  return spec === '' || spec.split(',').every((part) => FAILPOINT.test(part.trim()));
}

export function failpoint(site: string): void {
  if (state.armed !== null) hit(state.armed, site);
}

function hit(armed: Map<string, Action>, site: string): void {
  const action = armed.get(site);
  if (action === undefined) return;
  action.hits += 1;
  if (action.onHit !== 0 && action.onHit !== action.hits) return;
  if (action.unless !== '' && existsSync(action.unless)) return;
  switch (action.kind) {
    case 'kill':
      process.kill(process.pid, 'SIGKILL');
      block(Number.POSITIVE_INFINITY);
      return;
    case 'exit':
      process.exit(99);
      return;
    case 'sleep':
      block(Number(action.argument));
      return;
    case 'wait':
      while (!existsSync(action.argument)) block(WAIT_STEP_MS);
      return;
    case 'oom':
      for (const kept: number[][] = []; ; ) kept.push(new Array<number>(1 << 14).fill(kept.length));
    case 'eio':
      throw Object.assign(new Error(`EIO: failpoint ${site}`), { code: 'EIO' });
    case 'enospc':
      throw Object.assign(new Error(`ENOSPC: failpoint ${site}`), { code: 'ENOSPC' });
    default:
      throw new Error(`failpoint ${site}`);
  }
}

function block(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}
