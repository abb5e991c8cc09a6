/** A fresh folder that goes away with the test. */
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';

/** On a real disk where there is one: /tmp may be memory, on which fdatasync says nothing. */
export function temporaryFolder(t: Pick<TestContext, 'after'>, prefix = 'broker-test-'): string {
  const parent = process.env.BROKER_TEST_DIR ?? (existsSync('/var/tmp') ? '/var/tmp' : tmpdir());
  const folder = mkdtempSync(join(parent, prefix));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}
