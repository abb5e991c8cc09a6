/**
 * Power cuts on a real file system: an ext4 image on a loop device, shut down by the file system's own ioctl. What was not synced is gone;
 * what was synced must be there. Needs requireTool(t, 'loop-devices').
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { closeSync, ftruncateSync, mkdirSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/**
 * _IOR('X', 125, u32): EXT4_IOC_SHUTDOWN (fs/ext4/ext4.h). Flag 2, NOLOGFLUSH: not even the journal's memory is written out. From then on every
 * operation on the file system fails with EIO, and nothing more reaches the device.
 */
const CUT = `
import fcntl, os, struct, sys, time
disks = [os.open(path, os.O_RDONLY) for path in sys.argv[1:]]
flags = struct.pack('I', 2)
at = time.monotonic_ns()
for fd in disks:
    fcntl.ioctl(fd, 0x8004587d, flags)
print(at)
`;

export interface PowerCutOptions {
  /** Size of the file system; default 128 MiB. */
  readonly bytes?: number;
}

export class PowerCutDisk implements Disposable {
  /** The root of the file system, to put data in. */
  readonly path: string;
  readonly #folder: string;
  readonly #image: string;
  #isMounted = false;

  private constructor(folder: string) {
    this.#folder = folder;
    this.path = join(folder, 'disk');
    this.#image = join(folder, 'image');
  }

  /** Makes and mounts an empty file system. Use it with `using`, or call `dispose` in a `finally`. */
  static create(options: PowerCutOptions = {}): PowerCutDisk {
    const disk = new PowerCutDisk(mkdtempSync(join(process.env.BROKER_TEST_DIR ?? tmpdir(), 'power-cut-')));
    // Also when a test ends the process: a mounted image cannot be deleted by whoever cleans up behind it.
    process.once('exit', disk.#onExit);
    try {
      const fd = openSync(disk.#image, 'wx');
      ftruncateSync(fd, options.bytes ?? 128 * 1024 * 1024);
      closeSync(fd);
      execFileSync('mkfs.ext4', ['-q', '-F', '-m', '0', disk.#image], { stdio: 'pipe' });
      mkdirSync(disk.path);
      disk.#mount();
    } catch (error) {
      disk.dispose();
      throw error;
    }
    return disk;
  }

  /**
   * Cuts the power: programs that still run there get EIO for everything from now on. Stop them, then `restore`.
   *
   * Returns when it happened, on the clock of `process.hrtime.bigint()`. Only what a program said *before* that instant is a promise: the ioctl
   * is not as sudden as a real cut, and an fdatasync that is under way in its midst may return success for data that is gone (Linux 6.18,
   * a bare loop of write and fdatasync: 1 cut in 10). Let the program stamp what it says.
   */
  cut(): bigint {
    return PowerCutDisk.cutAll([this]);
  }

  /** The same of several at once: one within a millisecond of the other. */
  static cutAll(disks: readonly PowerCutDisk[]): bigint {
    const paths = disks.map(({ path }) => path);
    return BigInt(
      execFileSync('python3', ['-c', CUT, ...paths], { stdio: 'pipe' })
        .toString()
        .trim(),
    );
  }

  /** Power is back: what the device held is mounted again, its journal replayed. No program may have a file open there. */
  restore(): void {
    this.#unmount();
    this.#mount();
  }

  dispose(): void {
    process.off('exit', this.#onExit);
    this.#unmount();
    rmSync(this.#folder, { recursive: true, force: true });
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  readonly #onExit = (): void => this.dispose();

  #mount(): void {
    execFileSync('mount', ['-o', 'loop', this.#image, this.path], { stdio: 'pipe' });
    this.#isMounted = true;
  }

  #unmount(): void {
    if (!this.#isMounted) return;
    const first = spawnSync('umount', [this.path], { stdio: 'pipe' });
    // Lazily if a program that was not stopped still holds it: the loop device goes with the last file.
    if (first.status !== 0) spawnSync('umount', ['-l', this.path], { stdio: 'pipe' });
    this.#isMounted = false;
  }
}
