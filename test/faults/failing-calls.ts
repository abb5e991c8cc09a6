/** The file calls of the broker's disk, of which the n-th of one kind on one kind of file fails: with an error, or with an honest short write. */
import * as fs from 'node:fs';
import type { FsCalls } from '../../src/storage/disk.ts';

export const IO_CALLS = ['open', 'write', 'sync', 'truncate', 'rename', 'unlink', 'folder sync', 'mkdir'] as const;
export type IoCall = (typeof IO_CALLS)[number];
/** `lie`: says that it is done, and has done nothing. For the control group: no broker can know. */
export type IoError = 'EIO' | 'ENOSPC' | 'short' | 'lie';

export interface IoFault {
  readonly call: IoCall;
  /** Name of a kind of file (`kindOf`). */
  readonly file: string;
  readonly error: IoError;
  /** Which call, from 1. */
  readonly number: number;
}

/** Made by a call so many times; nothing fails. */
export type CallCounts = Map<string, number>;

export function keyOf(call: IoCall, file: string): string {
  return `${call} of ${file}`;
}

export class FailingCalls {
  readonly counts: CallCounts = new Map();
  /** The fault has happened. */
  happened = false;
  readonly #fault: IoFault | null;
  readonly #kindOf: (path: string) => string;
  readonly #paths = new Map<number, string>();

  constructor(fault: IoFault | null, kindOf: (path: string) => string) {
    this.#fault = fault;
    this.#kindOf = kindOf;
  }

  /** Bytes that a write may take, -1 for all; throws what fails. */
  #meet(call: IoCall, path: string): number {
    const file = this.#kindOf(path);
    const key = keyOf(call, file);
    const number = (this.counts.get(key) ?? 0) + 1;
    this.counts.set(key, number);
    const fault = this.#fault;
    if (fault === null || fault.call !== call || fault.file !== file || fault.number !== number) return -1;
    this.happened = true;
    if (fault.error === 'short') return 10;
    if (fault.error === 'lie') return 0;
    throw Object.assign(new Error(`${fault.error}: made by the test`), { code: fault.error });
  }

  get calls(): FsCalls {
    const pathOf = (fd: number): string => this.#paths.get(fd) ?? '';
    const open = ((path: string, flags: number, mode?: number) => {
      const isMade = (flags & fs.constants.O_CREAT) !== 0;
      if (isMade) this.#meet('open', path);
      const fd = fs.openSync(path, flags, mode);
      this.#paths.set(fd, path);
      return fd;
    }) as typeof fs.openSync;
    const firstOf = (buffers: readonly NodeJS.ArrayBufferView[], most: number): Uint8Array[] =>
      most < 0 ? (buffers as Uint8Array[]) : [Buffer.concat(buffers as Uint8Array[]).subarray(0, most)];
    return {
      ...fs,
      openSync: open,
      writeSync: ((fd: number, bytes: Uint8Array, start: number, length: number, position: number) => {
        const most = this.#meet('write', pathOf(fd));
        if (most === 0) return length;
        return fs.writeSync(fd, bytes, start, most < 0 ? length : Math.min(most, length), position);
      }) as typeof fs.writeSync,
      writevSync: (fd, buffers, position) =>
        fs.writevSync(fd, firstOf(buffers, this.#meet('write', pathOf(fd))), position),
      writev: ((fd: number, buffers: Uint8Array[], position: number, done: (e: Error | null, n: number) => void) => {
        this.#later(done, () =>
          fs.writev(fd, firstOf(buffers, this.#meet('write', pathOf(fd))), position, (error, written) =>
            done(error, written),
          ),
        );
      }) as typeof fs.writev,
      fdatasyncSync: (fd) => {
        this.#meet('sync', pathOf(fd));
        fs.fdatasyncSync(fd);
      },
      fdatasync: ((fd: number, done: (e: Error | null) => void) => {
        this.#later(done, () => {
          this.#meet('sync', pathOf(fd));
          fs.fdatasync(fd, done);
        });
      }) as typeof fs.fdatasync,
      fsyncSync: (fd) => {
        this.#meet('folder sync', pathOf(fd));
        fs.fsyncSync(fd);
      },
      ftruncateSync: (fd, length) => {
        this.#meet('truncate', pathOf(fd));
        fs.ftruncateSync(fd, length);
      },
      renameSync: (source, target) => {
        this.#meet('rename', String(source));
        fs.renameSync(source, target);
      },
      unlinkSync: (path) => {
        this.#meet('unlink', String(path));
        fs.unlinkSync(path);
      },
      mkdirSync: ((path: string, mode: number) => {
        this.#meet('mkdir', path);
        return fs.mkdirSync(path, mode);
      }) as typeof fs.mkdirSync,
    };
  }

  /** What fails asynchronously is told later, as the kernel does. */
  #later(done: (error: Error | null, written: number) => void, begin: () => void): void {
    try {
      begin();
    } catch (error) {
      setImmediate(done, error as Error, 0);
    }
  }
}
