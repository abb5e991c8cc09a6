/** What a caller must be for each method. */
import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { it } from 'node:test';
import { NEEDS, STREAMS } from '../../src/grpc/access/methods.ts';
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
