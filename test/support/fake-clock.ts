/** Processes with clocks of their own, which the test sets while they run. Needs requireTool(t, 'cc'). */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ROOT } from './source-tree.ts';

const SETTINGS_BYTES = 40;
const NS_A_MS = 1_000_000n;

/** The library, built once for its source. Throws with what the compiler says if it cannot be built. */
function library(): string {
  const source = join(ROOT, 'tools', 'fake-clock', 'fake-clock.c');
  const folder = join(ROOT, '.cache', 'fake-clock');
  const hash = createHash('sha256').update(readFileSync(source)).digest('hex').slice(0, 16);
  const built = join(folder, `${hash}.so`);
  if (existsSync(built)) return built;
  mkdirSync(folder, { recursive: true });
  const unfinished = `${built}.${process.pid}`;
  const { status, stderr } = spawnSync(
    'cc',
    ['-O2', '-shared', '-fPIC', '-o', unfinished, source, '-ldl', '-lpthread'],
    {
      encoding: 'utf8',
    },
  );
  if (status !== 0) throw new Error(`${source} cannot be built: ${stderr}`);
  renameSync(unfinished, built);
  return built;
}

export class FakeClock implements Disposable {
  /** For the process. */
  readonly env: Readonly<Record<string, string>>;
  readonly #folder: string;
  readonly #fd: number;
  #edits = 0n;
  #wallNs = 0n;
  #steadyNs = 0n;
  #sinceNs = process.hrtime.bigint();
  #rate = 1;

  /** Right until it is told otherwise. */
  constructor() {
    this.#folder = mkdtempSync(join(tmpdir(), 'fake-clock-'));
    const path = join(this.#folder, 'settings');
    this.#fd = openSync(path, 'wx');
    this.env = { LD_PRELOAD: library(), FAKE_CLOCK_FILE: path };
    this.#write();
  }

  /** How far the wall clock is ahead of the machine's now, in ms. */
  get aheadMs(): number {
    return Number(this.#wallNs + this.#drifted()) / 1e6;
  }

  /** The wall clock is set: so far ahead of the machine's, and right from then on. */
  setAhead(ms: number): void {
    this.#wallNs = BigInt(Math.round(ms)) * NS_A_MS;
    this.#sinceNs = process.hrtime.bigint();
    this.#rate = 1;
    this.#write();
  }

  /** From now on the wall clock goes so fast: 2 is twice. */
  drift(rate: number): void {
    this.#wallNs += this.#drifted();
    this.#sinceNs = process.hrtime.bigint();
    this.#rate = rate;
    this.#write();
  }

  /** The steady clock stood still for so long, while the wall clock did not. The process must not run meanwhile. */
  stoodStill(ms: number): void {
    this.#steadyNs -= BigInt(Math.round(ms)) * NS_A_MS;
    this.#write();
  }

  [Symbol.dispose](): void {
    closeSync(this.#fd);
    rmSync(this.#folder, { recursive: true, force: true });
  }

  #drifted(): bigint {
    return BigInt(Math.round(Number(process.hrtime.bigint() - this.#sinceNs) * (this.#rate - 1)));
  }

  /** As struct settings has it. */
  #write(): void {
    const settings = Buffer.alloc(SETTINGS_BYTES);
    settings.writeBigUInt64LE(this.#edits + 2n, 0);
    settings.writeBigInt64LE(this.#wallNs, 8);
    settings.writeBigInt64LE(this.#steadyNs, 16);
    settings.writeBigInt64LE(this.#sinceNs, 24);
    settings.writeDoubleLE(this.#rate, 32);
    const odd = Buffer.alloc(8);
    odd.writeBigUInt64LE(this.#edits + 1n);
    writeSync(this.#fd, odd, 0, 8, 0);
    writeSync(this.#fd, settings, 8, SETTINGS_BYTES - 8, 8);
    writeSync(this.#fd, settings, 0, 8, 0);
    this.#edits += 2n;
  }
}
