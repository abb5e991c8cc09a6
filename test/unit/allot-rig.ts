import { AllotMachine } from '../../src/allot/allot-machine.ts';
import type { AllotLimits } from '../../src/allot/allot-state.ts';
import * as commands from '../../src/allot/commands.ts';
import type { AllotmentOwner, AllotSink, PartAnswers } from '../../src/allot/verdicts.ts';
import { AllotVerdict, PartVerdict } from '../../src/allot/verdicts.ts';
import { REASON_NAMES } from '../../src/base/errors.ts';
import { subjectHash } from '../../src/base/subject.ts';

export const LIMITS: AllotLimits = { subjectsMax: 1000, producersMax: 1000, openPerNodeMax: 1000 };

export interface Part {
  readonly count: number;
  readonly producer?: string;
  readonly sequence?: number;
  readonly checksum?: number;
}

export type Command =
  | {
      readonly do: 'open';
      readonly subject: string;
      readonly count?: number;
      readonly parts?: readonly Part[];
      readonly expectedHead?: number;
      readonly expiresMax?: number;
      /** Some message expires, also where `expiresMax` is 0. */
      readonly hasExpiry?: boolean;
      /** Instead of these two: the word as it lies in the log. */
      readonly expiry?: number;
      readonly shard?: number;
      readonly counter?: number;
    }
  | { readonly do: 'stored' | 'void' | 'revoke' | 'revoke-behind'; readonly subject: string; readonly base: number }
  | { readonly do: 'trim'; readonly subject: string; readonly first: number }
  | { readonly do: 'node-started'; readonly keepOpen: boolean }
  | { readonly do: 'revoke-node'; readonly node: string; readonly shard?: number }
  | { readonly do: 'recovered'; readonly subject: string; readonly storeHighest: number; readonly head: number }
  | { readonly do: 'floor'; readonly floor: number }
  | { readonly do: 'producer'; readonly producer: string; readonly mayBeNew: boolean; readonly counter?: number };

export interface Origin {
  readonly node: string;
  readonly incarnation: number;
}

export const HOME: Origin = { node: 'a', incarnation: 1 };

export function text(value: string): Uint8Array {
  return Buffer.from(value);
}

export function hashOf(subject: string): number {
  const bytes = text(subject);
  return subjectHash(bytes, 0, bytes.length);
}

/** Encodes a run of commands of one process. */
export function encode(origin: Origin, run: readonly Command[]): Uint8Array {
  const buffer = Buffer.alloc(1024 + run.reduce((sum, each) => sum + sizeOf(each), 0));
  const view = new DataView(buffer.buffer, buffer.byteOffset, buffer.length);
  let at = commands.writeOrigin(view, buffer, 0, text(origin.node), origin.incarnation, 7);
  for (const command of run) {
    const before = at;
    at = write(view, buffer, at, command);
    if (at - before !== sizeOf(command))
      throw new Error(`size of ${command.do}: ${sizeOf(command)}, wrote ${at - before}`);
  }
  return buffer.subarray(0, at);
}

function sizeOf(command: Command): number {
  switch (command.do) {
    case 'open': {
      const length = text(command.subject).length;
      const hasHead = command.expectedHead !== undefined;
      if (command.parts === undefined) return commands.openSize(length, hasHead);
      const parts = command.parts.reduce((sum, part) => sum + commands.partSize(text(part.producer ?? '').length), 0);
      return commands.openPartsSize(length, hasHead) + parts;
    }
    case 'node-started':
      return commands.NODE_STARTED_BYTES;
    case 'revoke-node':
      return commands.revokeNodeSize(text(command.node).length);
    case 'recovered':
      return commands.recoveredSize(text(command.subject).length);
    case 'floor':
      return commands.FLOOR_BYTES;
    case 'producer':
      return commands.producerSize(text(command.producer).length);
    default:
      return commands.closeSize(text(command.subject).length);
  }
}

function write(view: DataView, bytes: Uint8Array, at: number, command: Command): number {
  if (command.do === 'open') return writeOpen(view, bytes, at, command);
  if (command.do === 'node-started') return commands.writeNodeStarted(view, at, command.keepOpen);
  if (command.do === 'revoke-node')
    return commands.writeRevokeNode(view, bytes, at, text(command.node), command.shard ?? -1);
  if (command.do === 'floor') return commands.writeFloor(view, at, command.floor);
  if (command.do === 'producer')
    return commands.writeProducer(view, bytes, at, text(command.producer), 0, command.counter ?? 0, command.mayBeNew);
  const subject = text(command.subject);
  const hash = hashOf(command.subject);
  switch (command.do) {
    case 'stored':
      return commands.writeClose(view, bytes, at, subject, hash, command.base, AllotVerdict.STORED);
    case 'void':
      return commands.writeClose(view, bytes, at, subject, hash, command.base, AllotVerdict.VOID);
    case 'revoke':
      return commands.writeRevoke(view, bytes, at, subject, hash, command.base);
    case 'revoke-behind':
      return commands.writeRevoke(view, bytes, at, subject, hash, command.base, commands.RevokeReach.BEHIND);
    case 'trim':
      return commands.writeTrim(view, bytes, at, subject, hash, command.first);
    case 'recovered':
      return commands.writeRecovered(view, bytes, at, subject, hash, command.storeHighest, command.head);
  }
}

function writeOpen(view: DataView, bytes: Uint8Array, at: number, open: Extract<Command, { do: 'open' }>): number {
  const subject = text(open.subject);
  const hash = hashOf(open.subject);
  const shard = open.shard ?? 0;
  const counter = open.counter ?? 0;
  const expiresMax = open.expiresMax ?? 0;
  const expires = open.expiry ?? commands.expiryWord(expiresMax, open.hasExpiry ?? expiresMax > 0);
  const expected = open.expectedHead ?? -1;
  if (open.parts === undefined) {
    return commands.writeOpen(view, bytes, at, subject, hash, shard, counter, open.count ?? 1, 100, expires, expected);
  }
  const total = open.parts.reduce((sum, part) => sum + part.count, 0);
  const parts = open.parts.length;
  let end = commands.writeOpenParts(
    view,
    bytes,
    at,
    subject,
    hash,
    shard,
    counter,
    total,
    100,
    expires,
    expected,
    parts,
  );
  for (const part of open.parts) {
    const producer = part.producer === undefined ? null : text(part.producer);
    end = commands.writePart(view, bytes, end, part.count, producer, part.sequence ?? 0, part.checksum ?? 0);
  }
  return end;
}

const VERDICTS = Object.fromEntries(Object.entries(AllotVerdict).map(([name, value]) => [value, name]));
const PARTS = Object.fromEntries(Object.entries(PartVerdict).map(([name, value]) => [value, name]));

export function verdictName(verdict: number): string {
  return VERDICTS[verdict] ?? `verdict ${verdict}`;
}

/** Writes down every answer as one line, so that a test compares text. */
export class Transcript implements AllotSink {
  lines: string[] = [];
  origins: string[] = [];
  owners: string[] = [];

  take(): string[] {
    const lines = this.lines;
    this.lines = [];
    return lines;
  }

  moved(): void {
    // Others look at it.
  }

  born(): void {
    // Others look at it.
  }

  origin(payload: Uint8Array, start: number, end: number, low: number): void {
    this.origins.push(`${Buffer.from(payload.subarray(start, end))}/${low}`);
  }

  opened(shard: number, counter: number, base: number, count: number, time: number): void {
    this.lines.push(`opened ${shard}.${counter} ${base}+${count} at ${time}`);
  }

  openRefused(shard: number, counter: number, reason: number): void {
    this.lines.push(`refused ${shard}.${counter} ${REASON_NAMES[reason]}`);
  }

  partsOpened(shard: number, counter: number, base: number, count: number, time: number, parts: PartAnswers): void {
    const answers: string[] = [];
    for (let i = 0; i < parts.length; i++) {
      const verdict = PARTS[parts.verdict[i] as number] ?? '?';
      const refused = parts.verdict[i] === PartVerdict.REFUSED;
      const waits = parts.verdict[i] === PartVerdict.WAITS ? `@${parts.waitsFor[i]}` : '';
      answers.push(`${verdict} ${refused ? REASON_NAMES[parts.reason[i] as number] : parts.first[i]}${waits}`);
    }
    this.lines.push(`parts ${shard}.${counter} ${base}+${count} at ${time}: ${answers.join(', ')}`);
  }

  producerOpened(shard: number, counter: number, lastSequence: number): void {
    this.lines.push(`producer ${shard}.${counter} last ${lastSequence}`);
  }

  verdict(
    names: Uint8Array,
    start: number,
    end: number,
    hash: number,
    base: number,
    count: number,
    verdict: number,
    applied: boolean,
    owner: AllotmentOwner,
  ): void {
    const subject = Buffer.from(names.subarray(start, end)).toString();
    if (hash !== hashOf(subject)) throw new Error(`hash of ${subject}`);
    this.lines.push(`${subject} ${base}+${count} ${verdictName(verdict)}${applied ? '' : ' not applied'}`);
    this.owners.push(`${owner.node}/${owner.incarnationLow} ${owner.shard}.${owner.counter}`);
  }

  nodeStarted(node: number, low: number, _high: number, revoked: number): void {
    this.lines.push(`node ${node}/${low} started, ${revoked} revoked`);
  }

  trimmed(names: Uint8Array, start: number, end: number, _hash: number, first: number): void {
    this.lines.push(`${Buffer.from(names.subarray(start, end))} first ${first}`);
  }
}

/** A machine with a log: every `run` is one entry. */
export class Rig {
  machine: AllotMachine;
  readonly limits: AllotLimits;
  readonly transcript = new Transcript();
  index = 0;
  time = 1_000;

  constructor(limits: AllotLimits = LIMITS) {
    this.limits = limits;
    this.machine = new AllotMachine(limits);
  }

  /** A rig whose node `a` has started. */
  static started(limits: AllotLimits = LIMITS): Rig {
    const rig = new Rig(limits);
    rig.run({ do: 'node-started', keepOpen: true });
    return rig;
  }

  run(...run: readonly Command[]): string[] {
    return this.runAs(HOME, ...run);
  }

  runAs(origin: Origin, ...run: readonly Command[]): string[] {
    this.index += 1;
    this.machine.apply(this.index, this.time, encode(origin, run), this.transcript);
    return this.transcript.take();
  }

  state(subject: string): { head: number; settled: number; first: number; everExpires: boolean } | null {
    const bytes = text(subject);
    const number = this.machine.find(bytes, 0, bytes.length, hashOf(subject));
    if (number < 0) return null;
    return {
      head: this.machine.head(number),
      settled: this.machine.settled(number),
      first: this.machine.first(number),
      everExpires: this.machine.everExpires(number),
    };
  }

  verdict(subject: string, id: number): string {
    const bytes = text(subject);
    const number = this.machine.find(bytes, 0, bytes.length, hashOf(subject));
    return number < 0 ? 'no subject' : verdictName(this.machine.verdictOf(number, id));
  }

  snapshot(bytesMax = 4096): Uint8Array[] {
    return drain(this.machine, bytesMax);
  }

  /** Goes on with a machine restored from a snapshot of this one. */
  restart(bytesMax = 4096): void {
    this.machine = AllotMachine.restore(this.snapshot(bytesMax), this.limits);
  }
}

export function drain(machine: AllotMachine, bytesMax: number): Uint8Array[] {
  const writer = machine.beginSnapshot();
  const chunks: Uint8Array[] = [];
  for (let chunk = writer.nextChunk(bytesMax); chunk !== null; chunk = writer.nextChunk(bytesMax)) chunks.push(chunk);
  return chunks;
}
