/** An engine with the image in it. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ROOT } from '../support/source-tree.ts';
import { isUsable } from '../support/tools.ts';
import { makeNodeBase } from './bases.ts';
import { Engine } from './engine.ts';

const BASE = 'node:24-bookworm-slim';

export interface ImageFile {
  /** Without the slash in front; folders end with one. */
  readonly path: string;
  /** Numbers: user/group. */
  readonly owner: string;
}

export class ImageRig {
  readonly engine: Engine;
  readonly image = 'broker:test';
  /** Of the build alone. */
  readonly buildMs: number;
  readonly folder: string;

  private constructor(engine: Engine, folder: string, buildMs: number) {
    this.engine = engine;
    this.folder = folder;
    this.buildMs = buildMs;
  }

  static get isPossible(): boolean {
    return isUsable('containers');
  }

  static async build(): Promise<ImageRig> {
    assert.match(readFileSync(join(ROOT, 'Dockerfile'), 'utf8'), new RegExp(`^ARG NODE_IMAGE=${BASE}$`, 'm'));
    const folder = mkdtempSync(join(tmpdir(), 'broker-image-'));
    const engine = await Engine.start(folder);
    try {
      await makeNodeBase(engine, folder, BASE);
      const begun = performance.now();
      const build = ['build', '--progress', 'plain', '--network', 'host', '-t', 'broker:test', ROOT];
      await engine.ask(build, { env: { DOCKER_BUILDKIT: '1' } });
      return new ImageRig(engine, folder, performance.now() - begun);
    } catch (error) {
      await engine.stop();
      rmSync(folder, { recursive: true, force: true });
      throw error;
    }
  }

  /** All files of the image, read from what the engine exports. */
  async files(): Promise<ImageFile[]> {
    const id = await this.engine.ask(['create', this.image]);
    const archive = join(this.folder, 'image.tar');
    await this.engine.ask(['export', '-o', archive, id]);
    await this.engine.ask(['rm', id]);
    const tar = spawn('tar', ['--numeric-owner', '-tvf', archive], { stdio: ['ignore', 'pipe', 'inherit'] });
    const lines: string[] = [];
    tar.stdout.setEncoding('utf8').on('data', (text: string) => lines.push(text));
    const [code] = await once(tar, 'close');
    rmSync(archive);
    assert.equal(code, 0);
    return lines
      .join('')
      .split('\n')
      .flatMap((line) => {
        const [, owner, path] = /^\S+ (\S+) +\d+ \S+ \S+ (.+?)(?: -> .*)?$/.exec(line) ?? [];
        return owner === undefined || path === undefined ? [] : [{ owner, path }];
      });
  }

  async stop(): Promise<void> {
    await this.engine.stop();
    rmSync(this.folder, { recursive: true, force: true });
  }
}
