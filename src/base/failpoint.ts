/**
 * Named places where a fault can be made to happen, in the manner of gofail: `site=action[@N]`, comma-separated. `@N` acts on the
 * N-th hit only (from 1), otherwise on every hit. Actions: `kill` (SIGKILL to the process), `exit` (of the process, or of the worker thread that
 * hits it), `throw`, `oom` (fills the thread's heap until V8 ends it), `eio`, `enospc`, `sleep:MS` (blocks the thread). Unarmed, a site costs one
 * load and one branch.
 */
type Action = { readonly kind: string; readonly argument: number; readonly onHit: number; hits: number };

const state: { armed: Map<string, Action> | null } = { armed: null };

/** Arms the sites of this thread. Called once by each thread's entry point with the value of BROKER_FAILPOINTS; '' disarms. */
export function armFailpoints(spec: string): void {
  state.armed = null;
  if (spec === '') return;
  const armed = new Map<string, Action>();
  for (const part of spec.split(',')) {
    const match = /^([\w.-]+)=(kill|exit|throw|oom|eio|enospc|sleep):?(\d*)(?:@(\d+))?$/.exec(part.trim());
    if (match === null) throw new Error(`failpoint: cannot read "${part}"; write site=action[@N]`);
    armed.set(match[1] as string, {
      kind: match[2] as string,
      argument: Number(match[3] ?? 0),
      onHit: Number(match[4] ?? 0),
      hits: 0,
    });
  }
  state.armed = armed;
}

export function failpoint(site: string): void {
  if (state.armed !== null) hit(state.armed, site);
}

function hit(armed: Map<string, Action>, site: string): void {
  const action = armed.get(site);
  if (action === undefined) return;
  action.hits += 1;
  if (action.onHit !== 0 && action.onHit !== action.hits) return;
  switch (action.kind) {
    case 'kill':
      process.kill(process.pid, 'SIGKILL');
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
      return;
    case 'exit':
      process.exit(99);
      return;
    case 'sleep':
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, action.argument);
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
