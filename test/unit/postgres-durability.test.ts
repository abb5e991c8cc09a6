/** Which settings of a PostgreSQL server lose acknowledged rows. What the server itself answers is tested in test/faults. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Database } from '../../src/storage/postgres/connection.ts';
import { checkDurability } from '../../src/storage/postgres/durability.ts';

const SOUND = {
  fsync: 'on',
  synchronous_commit: 'on',
  full_page_writes: 'on',
  synchronous_standby_names: '',
  client_min_messages: 'notice',
  in_recovery: false,
  standbys: 0,
};

describe('settings that lose acknowledged rows', () => {
  const standby = { synchronous_standby_names: 'a', standbys: 1 };
  const rows = [
    { what: 'none', set: {}, found: [] },
    { what: 'none, with a standby', set: standby, found: [] },
    { what: 'no fsync', set: { fsync: 'off' }, found: ['fsync'] },
    { what: 'torn pages', set: { full_page_writes: 'off' }, found: ['full_page_writes'] },
    { what: 'commits that do not wait', set: { synchronous_commit: 'off' }, found: ['synchronous_commit'] },
    { what: 'a standby that nobody waits for', set: { standbys: 1 }, found: ['there'] },
    {
      what: 'a standby that writes only',
      set: { ...standby, synchronous_commit: 'remote_write' },
      found: ['synchronous_commit'],
    },
    {
      what: 'warnings that are not told',
      set: { ...standby, client_min_messages: 'error' },
      found: ['client_min_messages'],
    },
    { what: 'no warnings where none matter', set: { client_min_messages: 'error' }, found: [] },
  ];
  for (const { what, set, found } of rows) {
    it(`[S14] ${what}`, async () => {
      const database = { one: () => Promise.resolve({ ...SOUND, ...set }) } as unknown as Database;
      const { weaknesses } = await checkDurability(database);
      assert.deepEqual(
        weaknesses.map((text) => text.split(' ', 1)[0]),
        found,
      );
    });
  }
});
