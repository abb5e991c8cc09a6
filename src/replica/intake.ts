import type { AllotMachine } from '../allot/allot-machine.ts';
import type { RunHeader } from '../allot/sound-run.ts';
import { isPlanted } from '../base/planted.ts';

/** Processes of one node of which the leader holds runs: the one that runs, and one that has just ended. */
const INCARNATIONS_MAX = 2;

interface Source {
  readonly name: Uint8Array;
  readonly low: number;
  readonly high: number;
  /** Number of the run that may come next. */
  next: number;
  /** Number of the oldest run that is held here; `next` if none is. */
  first: number;
  bytes: number;
}

interface Held {
  readonly source: Source;
  readonly bytes: Uint8Array;
}

export type IntakeResult = 'taken' | 'repeated' | 'dropped';

/**
 * The runs that a leader was given and has not proposed, in the order in which they came; of each process in the order of their numbers. It
 * only saves the log from what the state machine would skip: what it forgets comes again, and what it lets through twice is applied once.
 */
export class Intake {
  readonly #sources = new Map<string, Source[]>();
  readonly #bytesMax: number;
  #held: Held[] = [];
  /** False until all entries of earlier terms are applied: they may have runs that nobody knows of yet. */
  #isOpen = false;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  get isOpen(): boolean {
    return this.#isOpen;
  }
  get isEmpty(): boolean {
    return this.#held.length === 0;
  }

  clear(): void {
    this.#sources.clear();
    this.#held = [];
    this.#isOpen = false;
  }

  /** From now on the state machine says what comes next. */
  open(machine: AllotMachine): void {
    this.#isOpen = true;
    for (const sources of this.#sources.values()) for (const source of sources) this.#align(source, machine);
  }

  add(node: string, name: Uint8Array, header: RunHeader, bytes: Uint8Array, machine: AllotMachine): IntakeResult {
    const source = this.#sourceOf(node, name, header, machine);
    if (header.run < source.next && !isPlanted('R25-run-twice')) return 'repeated';
    if (header.run > source.next || (source.bytes > 0 && source.bytes + bytes.length > this.#bytesMax))
      return 'dropped';
    source.next = Math.max(source.next, header.run + 1);
    source.bytes += bytes.length;
    this.#held.push({ source, bytes });
    return 'taken';
  }

  /** Runs for one entry of at most `bytesMax` (one may exceed it). They stay until `proposed`. */
  front(bytesMax: number): Uint8Array[] {
    const runs: Uint8Array[] = [];
    let bytes = 0;
    for (const held of this.#held) {
      if (runs.length > 0 && bytes + held.bytes.length > bytesMax) break;
      runs.push(held.bytes);
      bytes += held.bytes.length;
    }
    return runs;
  }

  proposed(count: number): void {
    for (const { source, bytes } of this.#held.splice(0, count)) {
      source.bytes -= bytes.length;
      source.first += 1;
    }
  }

  /** The log has skipped a run that was not a repeat: the process sends again from there. */
  skipped(node: string, low: number, high: number, machine: AllotMachine): void {
    const source = this.#sources.get(node)?.find((each) => each.low === low && each.high === high);
    if (source === undefined || !this.#isOpen) return;
    this.#drop(source);
    source.next = Math.max(machine.lastRun(source.name, low, high), 0) + 1;
    source.first = source.next;
  }

  #sourceOf(node: string, name: Uint8Array, header: RunHeader, machine: AllotMachine): Source {
    const { incarnationLow: low, incarnationHigh: high, run } = header;
    let sources = this.#sources.get(node);
    if (sources === undefined) {
      sources = [];
      this.#sources.set(node, sources);
    }
    const known = sources.find((each) => each.low === low && each.high === high);
    if (known !== undefined) return known;
    const next = this.#isOpen ? Math.max(machine.lastRun(name, low, high), 0) + 1 : run;
    const source: Source = { name, low, high, next, first: next, bytes: 0 };
    sources.push(source);
    if (sources.length > INCARNATIONS_MAX) this.#drop(sources.shift() as Source);
    return source;
  }

  /** Of what came before `open` only what the state machine will take stays. */
  #align(source: Source, machine: AllotMachine): void {
    const next = Math.max(machine.lastRun(source.name, source.low, source.high), 0) + 1;
    if (next < source.first || next > source.next) {
      this.#drop(source);
      source.next = next;
    } else {
      let number = source.first;
      this.#held = this.#held.filter((held) => {
        if (held.source !== source) return true;
        if (number++ >= next) return true;
        source.bytes -= held.bytes.length;
        return false;
      });
    }
    source.first = next;
  }

  #drop(source: Source): void {
    this.#held = this.#held.filter((held) => held.source !== source);
    source.bytes = 0;
  }
}
