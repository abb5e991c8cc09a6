/** One container of an image. */
import assert from 'node:assert/strict';
import { until } from '../support/until.ts';
import type { Ended, Engine } from './engine.ts';

/** What a careful operator takes from it: the root file system to write to, every capability, more memory and processes than it needs. */
export const HARDENED = [
  ...['--read-only', '--cap-drop', 'ALL', '--security-opt', 'no-new-privileges'],
  ...['--memory', '256m', '--pids-limit', '100'],
];
/** Time for a start or a probe; it only ends a wait that would never end. */
const WAIT_MS = 180_000;

export interface ContainerOptions {
  readonly image: string;
  /** Of `docker create`. */
  readonly flags?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** In place of the image's own. */
  readonly args?: readonly string[];
}

export interface State {
  readonly Running: boolean;
  readonly ExitCode: number;
  readonly OOMKilled: boolean;
  readonly Health?: { readonly Status: string; readonly Log: readonly { readonly Output: string }[] };
}

export class Container {
  readonly id: string;
  readonly #engine: Engine;

  private constructor(engine: Engine, id: string) {
    this.#engine = engine;
    this.id = id;
  }

  /** Not started yet. */
  static async create(
    engine: Engine,
    { image, flags = [], env = {}, args = [] }: ContainerOptions,
  ): Promise<Container> {
    const variables = Object.entries(env).flatMap(([name, value]) => ['--env', `${name}=${value}`]);
    return new Container(engine, await engine.ask(['create', ...flags, ...variables, image, ...args]));
  }

  /** One that somebody else has made. */
  static of(engine: Engine, id: string): Container {
    return new Container(engine, id);
  }

  async start(): Promise<void> {
    await this.#engine.ask(['start', this.id]);
  }

  async state(): Promise<State> {
    return (await this.#engine.inspect(this.id)).State as State;
  }

  async logs(): Promise<string> {
    const { out, err } = await this.#engine.run(['logs', '--tail', '50', this.id]);
    return out + err;
  }

  exec(argv: readonly string[]): Promise<Ended> {
    return this.#engine.run(['exec', this.id, ...argv]);
  }

  /** What an expression of JavaScript is inside. */
  async evaluate(expression: string): Promise<unknown> {
    const { code, out, err } = await this.exec(['node', '-p', `JSON.stringify(${expression})`]);
    assert.equal(code, 0, err);
    return JSON.parse(out);
  }

  /** Until its HEALTHCHECK says so. */
  async healthy(): Promise<void> {
    await until(
      async () => {
        const { Running, Health } = await this.state();
        assert.ok(Running, `it ended:\n${await this.logs()}`);
        return Health?.Status === 'healthy';
      },
      () => 'not healthy',
      WAIT_MS,
    );
  }

  /** `docker stop`: SIGTERM, and SIGKILL when the time is over. How it ended. */
  async stop(seconds: number): Promise<State> {
    await this.#engine.ask(['stop', '-t', String(seconds), this.id]);
    return await this.state();
  }

  async kill(): Promise<State> {
    await this.#engine.ask(['kill', this.id]);
    return await this.state();
  }

  /** Until it has ended by itself. */
  async ended(): Promise<State> {
    await until(
      async () => !(await this.state()).Running,
      () => 'it runs on',
      WAIT_MS,
    );
    return await this.state();
  }

  async remove(): Promise<void> {
    await this.#engine.ask(['rm', '-f', this.id]);
  }
}
