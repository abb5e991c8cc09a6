/**
 * `npm run lock`: adds to package-lock.json the entries of optional packages of other platforms. npm leaves out those that its registry
 * (a mirror, say) does not have, and then `npm ci` refuses the lock file as incomplete. Their versions are exact in the package that names them.
 */
import { readFileSync, writeFileSync } from 'node:fs';

const path = new URL('../package-lock.json', import.meta.url);
const lock = JSON.parse(readFileSync(path, 'utf8'));
const PLATFORM =
  /(aix|android|darwin|freebsd|linux|netbsd|openbsd|win32)-(arm64|armv7|arm|ia32|ppc64|riscv64|s390x|x64)/;

let added = 0;
for (const owner of Object.values({ ...lock.packages })) {
  for (const [name, version] of Object.entries(owner.optionalDependencies ?? {})) {
    const key = `node_modules/${name}`;
    const match = PLATFORM.exec(name);
    if (lock.packages[key] !== undefined || match === null) continue;
    const [, os, cpu] = match;
    lock.packages[key] = {
      version,
      cpu: [cpu === 'armv7' ? 'arm' : cpu],
      ...(owner.dev === true ? { dev: true } : {}),
      ...(name.endsWith('musl') ? { libc: ['musl'] } : {}),
      optional: true,
      os: [os],
    };
    added += 1;
  }
}
lock.packages = Object.fromEntries(Object.entries(lock.packages).sort(([a], [b]) => (a < b ? -1 : 1)));
writeFileSync(path, `${JSON.stringify(lock, null, 2)}\n`);
console.log(added === 0 ? 'package-lock.json is complete' : `added ${added} entries to package-lock.json`);
