/** What a caller must be for each method. */
import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { it } from 'node:test';
import type { Caller } from '../../src/access/caller.ts';
import { NEEDS, STREAMS, unmet } from '../../src/grpc/access/methods.ts';
import { ROOT } from '../support/source-tree.ts';

/** Path and whether it stays open, of every method of the proto files. */
function methodsOf(text: string): Map<string, boolean> {
  const name = /^package ([\w.]+);/m.exec(text)?.[1] ?? '';
  const found = new Map<string, boolean>();
  for (const [, service, body = ''] of text.matchAll(/^service (\w+) \{([\s\S]*?)^\}/gm)) {
    for (const [, method, asks, answers] of body.matchAll(/rpc (\w+) ?\((stream )?[\w.]+\) returns \((stream )?/g))
      found.set(`/${name}.${service}/${method}`, (asks ?? answers) !== undefined);
  }
  return found;
}

it('every method of proto/ has what it needs, and every one that stays open is known to', () => {
  const files = globSync('proto/**/*.proto', { cwd: ROOT });
  const methods = new Map(files.flatMap((file) => [...methodsOf(readFileSync(join(ROOT, file), 'utf8'))]));
  assert.ok(methods.size >= 30, `${methods.size}`);
  const served = [...NEEDS.keys()].filter((path) => !path.startsWith('/grpc.'));
  assert.deepEqual(served.sort(), [...methods.keys()].sort());
  // Other nodes end their streams themselves.
  const open = [...methods].filter(([path, isOpen]) => isOpen && NEEDS.get(path) !== 'node').map(([path]) => path);
  assert.deepEqual([...STREAMS].filter((path) => !path.startsWith('/grpc.')).sort(), open.sort());
});

it('the table of docs/security.md has every method of operators, with what it is to who is of a tenant', () => {
  const text = readFileSync(join(ROOT, 'docs/security.md'), 'utf8');
  const rows = text.split('\n').filter((line) => line.startsWith('|') && line.endsWith('|'));
  const words = (row: string): string[] => row.match(/\b[A-Z]\w+/g) ?? [];
  const first = rows.findIndex((row) => row.startsWith('| `observe: true` |'));
  assert.ok(first >= 0);
  const methods = new Set([...NEEDS.keys()].map((path) => path.slice(path.lastIndexOf('/') + 1)));
  for (const [i, need] of (['observe', 'observe-all', 'admin', 'admin-all'] as const).entries()) {
    const row = rows[first + i] ?? '';
    const wanted = [...NEEDS].filter(([, one]) => one === need).map(([path]) => path.slice(path.lastIndexOf('/') + 1));
    // SubjectInfo is also for those who may read the subject.
    const told = words(row).filter((word) => methods.has(word) && word !== 'SubjectInfo');
    assert.deepEqual(told.sort(), wanted.sort(), need);
    assert.equal(row.includes('TENANT_BOUND'), need.endsWith('-all'), need);
  }
});

it('who is in the space of a tenant is refused what is of all, for that and not for a lack of permissions', () => {
  const callerOf = (administers: boolean, space: string): Caller => ({
    name: 'a',
    tenant: 'acme',
    space: Buffer.from(space),
    observes: true,
    administers,
    may: () => true,
    mayFind: () => true,
    demand: () => null,
  });
  const unmetOf = (administers: boolean, space: string) =>
    (['known', 'observe', 'observe-all', 'admin', 'admin-all', 'node'] as const).map((need) =>
      unmet(need, callerOf(administers, space)),
    );
  const DENIED = 'PERMISSION_DENIED';
  assert.deepEqual(unmetOf(true, ''), [null, null, null, null, null, DENIED]);
  assert.deepEqual(unmetOf(false, ''), [null, null, null, DENIED, DENIED, DENIED]);
  assert.deepEqual(unmetOf(true, 'acme'), [null, null, 'TENANT_BOUND', null, 'TENANT_BOUND', DENIED]);
  assert.deepEqual(unmetOf(false, 'acme'), [null, null, 'TENANT_BOUND', DENIED, DENIED, DENIED]);
});
