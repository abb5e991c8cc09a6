import type { AllotMachine } from '../../allot/allot-machine.ts';
import { subjectHash } from '../../base/subject.ts';

/** Writes where the log stands with a subject, for the shard that asked. False: its ring takes no more now. */
export type ProgressWriter = (shard: number, subject: number, names: Uint8Array, hash: number) => boolean;

/** Not in the state machine: nothing was ever published to it. */
const UNBORN = -1;

/**
 * The subjects that the shards of this node deliver, and which of them the log has moved since they were told (ToRaft.INTEREST, FromRaft.PROGRESS). A node
 * without peers has none: its shards move everything themselves.
 */
export class Interests {
  readonly #machine: () => AllotMachine;
  /** Shard by number of the subject. */
  readonly #shards = new Map<number, number>();
  /** Those that are not born yet, by name. */
  readonly #unborn = new Map<string, number>();
  readonly #moved = new Set<number>();

  constructor(machine: () => AllotMachine) {
    this.#machine = machine;
  }

  get size(): number {
    return this.#shards.size + this.#unborn.size;
  }

  begin(shard: number, bytes: Uint8Array, hash: number): void {
    const subject = this.#machine().find(bytes, 0, bytes.length, hash);
    if (subject === UNBORN) {
      this.#unborn.set(keyOf(bytes), shard);
      return;
    }
    this.#shards.set(subject, shard);
    this.#moved.add(subject);
  }

  /** Nothing, if another shard has asked for it since: its slot has moved. */
  end(shard: number, bytes: Uint8Array, hash: number): void {
    const key = keyOf(bytes);
    if (this.#unborn.get(key) === shard) this.#unborn.delete(key);
    const subject = this.#machine().find(bytes, 0, bytes.length, hash);
    if (subject !== UNBORN && this.#shards.get(subject) === shard) this.#forget(subject);
  }

  /** The thread of that shard is gone. */
  endAll(shard: number): void {
    for (const [key, owner] of this.#unborn) if (owner === shard) this.#unborn.delete(key);
    for (const [subject, owner] of this.#shards) if (owner === shard) this.#forget(subject);
  }

  /** An entry has moved the head or settled of a subject. */
  moved(subject: number): void {
    if (this.#shards.has(subject)) this.#moved.add(subject);
  }

  /** A subject got its first id. */
  born(subject: number): void {
    if (this.#unborn.size === 0) return;
    const key = keyOf(this.#machine().nameOf(subject));
    const shard = this.#unborn.get(key);
    if (shard === undefined) return;
    this.#unborn.delete(key);
    this.#shards.set(subject, shard);
    this.#moved.add(subject);
  }

  /** The state machine is another one, from a snapshot: everything may have moved, and what was not born may be. Numbers of subjects stay. */
  restored(): void {
    for (const [key, shard] of this.#unborn) {
      const bytes = Buffer.from(key, 'latin1');
      const subject = this.#machine().find(bytes, 0, bytes.length, subjectHash(bytes, 0, bytes.length));
      if (subject === UNBORN) continue;
      this.#unborn.delete(key);
      this.#shards.set(subject, shard);
    }
    for (const subject of this.#shards.keys()) this.#moved.add(subject);
  }

  /** Tells what has moved. What a full ring had no room for is told in the next round, as it stands then. */
  tell(write: ProgressWriter): number {
    if (this.#moved.size === 0) return 0;
    let told = 0;
    for (const subject of this.#moved) {
      const shard = this.#shards.get(subject);
      if (shard === undefined) continue;
      const name = this.#machine().nameOf(subject);
      if (!write(shard, subject, name, subjectHash(name, 0, name.length))) continue;
      this.#moved.delete(subject);
      told += 1;
    }
    return told;
  }

  #forget(subject: number): void {
    this.#shards.delete(subject);
    this.#moved.delete(subject);
  }
}

function keyOf(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1');
}
