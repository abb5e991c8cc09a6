/** Runs one of the examples of this folder: `node bin/node24.mjs examples/run.ts NAME`. */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';

const [name = ''] = process.argv.slice(2);
if (!/^[a-z]+$/.test(name)) throw new Error('usage: node bin/node24.mjs examples/run.ts publish');
const script = join(import.meta.dirname, `${name}.ts`);
const { status } = spawnSync(process.execPath, ['--conditions=broker-source', script], { stdio: 'inherit' });
process.exitCode = status ?? 1;
