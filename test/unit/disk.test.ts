/** The disk port, with a kernel that misbehaves on demand. */
import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { armFailpoints } from '../../src/base/failpoint.ts';
import { DiskError, DiskFull, type FsCalls, NodeDisk, SyncFailed } from '../../src/storage/disk.ts';
import { temporaryFolder } from '../support/temporary.ts';

function systemError(code: string): Error {
  return Object.assign(new Error(`${code}: made by the test`), { code });
}

/** A kernel whose writes take at most `most(call)` bytes and whose other calls can be replaced. */
function stingy(most: (call: number) => number, more: Partial<FsCalls> = {}): FsCalls {
  let call = 0;
  const cut = (buffers: readonly NodeJS.ArrayBufferView[]): Uint8Array[] => {
    const whole = Buffer.concat(buffers as Uint8Array[]);
    call += 1;
    return [whole.subarray(0, Math.min(whole.length, most(call)))];
  };
  return {
    ...fs,
    writeSync: ((fd: number, bytes: Uint8Array, start: number, length: number, position: number) => {
      call += 1;
      return fs.writeSync(fd, bytes, start, Math.min(length, most(call)), position);
    }) as typeof fs.writeSync,
    writevSync: (fd, buffers, position) => fs.writevSync(fd, cut(buffers), position),
    writev: ((fd: number, buffers: Uint8Array[], position: number, callback: (e: Error | null, n: number) => void) => {
      fs.writev(fd, cut(buffers), position, (error, written) => callback(error, written));
    }) as typeof fs.writev,
    ...more,
  };
}

test('[S7] short writes are continued until every byte is there, single, vectored and asynchronous', async (t) => {
  const dir = temporaryFolder(t);
  let run = 0;
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.uint8Array({ maxLength: 40 }), { maxLength: 8 }),
      fc.integer({ min: 1, max: 17 }),
      fc.integer({ min: 0, max: 100 }),
      async (buffers, most, position) => {
        const whole = Buffer.concat(buffers);
        const disk = new NodeDisk(stingy((call) => 1 + ((call * most) % 13)));
        const file = disk.createExclusive(join(dir, `run-${run++}`));
        const size = 3 * (whole.length + position) + whole.length + 10;
        file.truncate(size);
        file.writeFullySync(whole, 0, whole.length, position);
        assert.equal(file.writevFullySync(buffers, position + whole.length), whole.length);
        assert.equal(await file.writevFully(buffers, position + 2 * whole.length), whole.length);
        const read = Buffer.alloc(3 * whole.length);
        assert.equal(file.preadSync(read, 0, read.length, position), read.length);
        assert.deepEqual(read, Buffer.concat([whole, whole, whole]));
        read.fill(0);
        assert.equal(await file.pread(read, 0, read.length, position), read.length);
        assert.deepEqual(read, Buffer.concat([whole, whole, whole]));
        file.close();
      },
    ),
    { numRuns: 100 },
  );
});

test('[S7] a write of 0 bytes is an error and not an endless loop', async (t) => {
  const file = new NodeDisk(stingy((call) => (call % 2 === 0 ? 0 : 3))).createExclusive(join(temporaryFolder(t), 'f'));
  const bytes = Buffer.from('0123456789');
  assert.throws(() => file.writeFullySync(bytes, 0, 10, 0), DiskError);
  assert.throws(() => file.writevFullySync([bytes], 0), DiskError);
  await assert.rejects(file.writevFully([bytes], 0), DiskError);
});

test('reading beyond the end of the file tells how much there was', async (t) => {
  const file = new NodeDisk().createExclusive(join(temporaryFolder(t), 'f'));
  file.writevFullySync([Buffer.from('abc')], 0);
  const target = Buffer.alloc(10);
  assert.equal(file.preadSync(target, 2, 10, 1), 2);
  assert.equal(target.toString('latin1', 2, 4), 'bc');
  assert.equal(await file.pread(target, 0, 10, 3), 0);
});

test('[S2] after a failed sync every write and sync of the file fails, though the kernel would say yes', async (t) => {
  const dir = temporaryFolder(t);
  for (const kind of ['sync', 'async'] as const) {
    let syncs = 0;
    const failOnce = (): boolean => {
      syncs += 1;
      return syncs === 2;
    };
    const disk = new NodeDisk({
      ...fs,
      fdatasyncSync: (fd) => {
        if (failOnce()) throw systemError('EIO');
        fs.fdatasyncSync(fd);
      },
      fdatasync: ((fd: number, callback: fs.NoParamCallback) => {
        if (failOnce()) callback(systemError('EIO') as NodeJS.ErrnoException);
        else fs.fdatasync(fd, callback);
      }) as typeof fs.fdatasync,
    });
    const file = disk.createExclusive(join(dir, kind));
    const sync = async (): Promise<void> => (kind === 'sync' ? file.fdatasyncSync() : file.fdatasync());
    await sync();
    await assert.rejects(
      sync(),
      (error: unknown) => error instanceof SyncFailed && error.fatal && error.code === 'EIO',
    );
    await assert.rejects(sync(), SyncFailed);
    assert.throws(() => file.fdatasyncSync(), SyncFailed);
    assert.throws(() => file.writeFullySync(Buffer.from('x'), 0, 1, 0), SyncFailed);
    await assert.rejects(file.writevFully([Buffer.from('x')], 0), SyncFailed);
    assert.equal(syncs, 2, 'the kernel was not asked again');
    file.close();
  }
});

test('[S2] of two syncs under way the one that succeeds after the other failed is a failure too', async (t) => {
  const callbacks: fs.NoParamCallback[] = [];
  const fdatasync = ((_: number, callback: fs.NoParamCallback) =>
    callbacks.push(callback)) as unknown as typeof fs.fdatasync;
  const file = new NodeDisk({ ...fs, fdatasync }).createExclusive(join(temporaryFolder(t), 'f'));
  const both = [file.fdatasync(), file.fdatasync()].map((one) => assert.rejects(one, SyncFailed));
  callbacks[0]?.(systemError('EIO') as NodeJS.ErrnoException);
  callbacks[1]?.(null);
  await Promise.all(both);
});

test('[S4] rename, unlink and mkdir sync the folders whose names they change', (t) => {
  const dir = temporaryFolder(t);
  const synced: string[] = [];
  const opened = new Map<number, string>();
  const disk = new NodeDisk({
    ...fs,
    openSync: (path, ...rest) => {
      const fd = fs.openSync(path, ...rest);
      opened.set(fd, String(path));
      return fd;
    },
    fsyncSync: (fd) => {
      synced.push(opened.get(fd) as string);
      fs.fsyncSync(fd);
    },
  });
  const since = (body: () => unknown): string[] => {
    synced.length = 0;
    body();
    return [...synced];
  };
  assert.deepEqual(
    since(() => disk.mkdir(join(dir, 'sub'))),
    [dir],
  );
  assert.deepEqual(
    since(() => disk.mkdir(join(dir, 'sub'))),
    [],
  );
  disk.createExclusive(join(dir, 'a')).close();
  assert.deepEqual(
    since(() => disk.rename(join(dir, 'a'), join(dir, 'b'))),
    [dir],
  );
  assert.deepEqual(
    since(() => disk.rename(join(dir, 'b'), join(dir, 'sub', 'b'))),
    [join(dir, 'sub'), dir],
  );
  assert.deepEqual(
    since(() => disk.unlink(join(dir, 'sub', 'b'))),
    [join(dir, 'sub')],
  );
});

test('[S2, S4] a failed sync of a folder is fatal', (t) => {
  const dir = temporaryFolder(t);
  const disk = new NodeDisk({
    ...fs,
    fsyncSync: () => {
      throw systemError('EIO');
    },
  });
  assert.throws(() => disk.mkdir(join(dir, 'x')), SyncFailed);
  assert.throws(() => disk.syncDirectory(dir), SyncFailed);
});

test('errors name operation, path and code; a full disk is told apart', (t) => {
  const dir = temporaryFolder(t);
  const path = join(dir, 'none');
  const disk = new NodeDisk();
  assert.equal(disk.size(path), -1);
  for (const body of [
    () => disk.open(path, 'read'),
    () => disk.unlink(path),
    () => disk.rename(path, `${path}2`),
    () => disk.list(path),
    () => disk.freeBytes(path),
    () => disk.mkdir(join(path, 'deep')),
  ]) {
    assert.throws(
      body,
      (error: unknown) =>
        error instanceof DiskError && error.code === 'ENOENT' && error.path.startsWith(path) && !error.fatal,
    );
  }
  const file = disk.createExclusive(path, 'mine');
  assert.throws(
    () => disk.createExclusive(path),
    (error: unknown) => error instanceof DiskError && error.code === 'EEXIST',
  );
  assert.throws(
    () => disk.mkdir(path),
    (error: unknown) => error instanceof DiskError && error.code === 'EEXIST',
  );
  try {
    armFailpoints('mine.write=enospc@1,mine.sync=eio@1');
    assert.throws(() => file.writevFullySync([Buffer.from('a')], 0), DiskFull);
    assert.equal(file.writevFullySync([Buffer.from('a')], 0), 1);
    assert.throws(() => file.fdatasyncSync(), SyncFailed);
  } finally {
    armFailpoints('');
  }
});

test('preallocated bytes are zeros, of exactly the length asked for', (t) => {
  const file = new NodeDisk().createExclusive(join(temporaryFolder(t), 'f'));
  file.writevFullySync([Buffer.from('abc')], 0);
  file.preallocate(3, 600_001);
  file.preallocate(600_001, 600_001);
  assert.equal(file.size(), 600_001);
  const bytes = Buffer.alloc(600_001);
  file.preadSync(bytes, 0, bytes.length, 0);
  assert.equal(bytes.toString('latin1', 0, 3), 'abc');
  assert.ok(bytes.subarray(3).every((byte) => byte === 0));
  file.close();
  file.close();
});
