/** `npm run generate`: lints the proto files and makes src/grpc/gen from them. The hot path's codec is written by hand. */
import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const folder = fileURLToPath(new URL('.', import.meta.url));
const buf = fileURLToPath(new URL('../node_modules/.bin/buf', import.meta.url));
const run = (...args: string[]): void => void execFileSync(buf, args, { cwd: folder, stdio: 'inherit' });

run('lint');
const inputs = ['broker.proto', 'broker/v1', 'google/rpc'].flatMap((path) => ['--path', path]);
run('generate', ...inputs, '--include-imports');
