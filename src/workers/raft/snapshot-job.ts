import type { SnapshotWriter as StateWriter } from '../../allot/snapshot-writer.ts';
import type { SnapshotWriter as FileWriter } from '../../storage/raft-wal/types.ts';

/** A chunk of the state per round: short enough to stop nobody. */
const CHUNK_BYTES = 256 * 1024;

/** Writes a snapshot of the state machine a chunk at a time, between rounds of work, and publishes it. One that fails leaves nothing behind. `onError` learns of what `onDone` throws too. */
export class SnapshotJob {
  readonly #state: StateWriter;
  readonly #file: FileWriter;
  readonly #onDone: (path: string) => void;
  readonly #onError: (error: unknown) => void;
  #phase: 'writing' | 'finishing' | 'over' = 'writing';

  constructor(state: StateWriter, file: FileWriter, onDone: (path: string) => void, onError: (error: unknown) => void) {
    this.#state = state;
    this.#file = file;
    this.#onDone = onDone;
    this.#onError = onError;
  }

  /** Returns 1 while there is more to write now. */
  work(): number {
    if (this.#phase !== 'writing') return 0;
    const chunk = this.#state.nextChunk(CHUNK_BYTES);
    if (chunk !== null) {
      this.#write(chunk);
      return 1;
    }
    this.#phase = 'finishing';
    this.#file
      .flush()
      .then(() => this.#file.finish('local'))
      .then(
        (stored) => this.#finish(() => this.#done(stored.path)),
        (error: unknown) => this.#fail(error),
      );
    return 1;
  }

  #write(chunk: Uint8Array): void {
    try {
      this.#file.write(chunk);
    } catch (error) {
      this.#state.abandon();
      this.#fail(error);
    }
  }

  /** The file is published by now, so that there is nothing to abort if whoever takes it over fails. */
  #done(path: string): void {
    try {
      this.#onDone(path);
    } catch (error) {
      this.#onError(error);
    }
  }

  #fail(error: unknown): void {
    this.#finish(() => {
      this.#file.abort();
      this.#onError(error);
    });
  }

  abort(): void {
    if (this.#phase === 'writing') this.#state.abandon();
    if (this.#phase !== 'over') this.#file.abort();
    this.#phase = 'over';
  }

  #finish(then: () => void): void {
    if (this.#phase === 'over') return;
    this.#phase = 'over';
    then();
  }
}
