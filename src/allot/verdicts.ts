/**
 * What the state machine says of an allotment. In snapshots and commands the numbers are frozen: append only.
 *
 *   (nothing) --open--> OPEN --close(stored)--> STORED
 *                        |
 *                      revoke
 *                        v
 *                     REVOKED --close(void)--> VOID
 */
export const AllotVerdict = {
  /** No allotment has this base, or the id is above the head. */
  UNKNOWN: 0,
  OPEN: 1,
  STORED: 2,
  REVOKED: 3,
  VOID: 4,
  /** At or below `settled`: stored or void, and the store's rows and marks say which. */
  SETTLED: 5,
} as const;

/** What became of one part of an open. */
export const PartVerdict = {
  /** New ids, from `first` on. */
  ALLOTTED: 1,
  /** This sequence is stored already: `first` is its first id of then. */
  STORED: 2,
  /** This sequence has ids (from `first` on) in the open allotment `waitsFor`: its verdict decides. Revoked: ask again. */
  WAITS: 3,
  /** Nothing was allotted; `reason` says why. */
  REFUSED: 4,
} as const;

/** Answers to the parts of one open, as columns; row i is part i. Reused: read it before `partsOpened` returns. */
export class PartAnswers {
  length = 0;
  verdict = new Uint8Array(16);
  /** First id, 0 if refused. */
  first = new Float64Array(16);
  /** Base of the allotment that holds the part's ids and is open; 0 unless the verdict is ALLOTTED or WAITS. */
  waitsFor = new Float64Array(16);
  /** Position in the catalogue of reasons (REASON_CODE); meaningful if refused. */
  reason = new Uint16Array(16);

  reset(length: number): void {
    this.length = length;
    if (length <= this.verdict.length) return;
    const capacity = length + (length >>> 1);
    this.verdict = new Uint8Array(capacity);
    this.first = new Float64Array(capacity);
    this.waitsFor = new Float64Array(capacity);
    this.reason = new Uint16Array(capacity);
  }
}

/** Who asked for an allotment. Reused: read it before `verdict` returns. */
export class AllotmentOwner {
  /** Number of the node (AllotMachine.nodeNumber); -1 where there is no such allotment any more. */
  node = -1;
  /** The incarnation's 8 bytes as two little-endian halves. */
  incarnationLow = 0;
  incarnationHigh = 0;
  /** The request, verbatim. */
  shard = 0;
  counter = 0;
}

/** Hears of every run of an entry, behind its commands. */
export interface RunSink {
  /** `applied`: its number was the next one; else all of it was skipped. The node's name is payload[nodeStart, nodeEnd). */
  run(
    payload: Uint8Array,
    nodeStart: number,
    nodeEnd: number,
    incarnationLow: number,
    incarnationHigh: number,
    run: number,
    applied: boolean,
  ): void;
}

/**
 * Receives the answers of `apply`, during the call. Every replica gets all of them and answers only its own requests: an answer to an
 * open belongs to the process that the last `origin` named; a verdict names the owner of the allotment. Calls must not change the machine.
 */
export interface AllotSink {
  /** The commands behind this come from that process. The node's name is payload[nodeStart, nodeEnd). */
  origin(
    payload: Uint8Array,
    nodeStart: number,
    nodeEnd: number,
    incarnationLow: number,
    incarnationHigh: number,
  ): void;
  /** Head, settled or first of a subject changed (a number as AllotMachine.find gives it). */
  moved(subject: number): void;
  /** A subject got its first id; `moved` follows. */
  born(subject: number): void;
  /** A plain open: ids [base, base + count). `time`: log time in ms, the messages' published_at. */
  opened(shard: number, counter: number, base: number, count: number, time: number): void;
  /** Nothing was allotted. Also the answer to an open with parts whose process is not the node's latest. */
  openRefused(shard: number, counter: number, reasonCode: number): void;
  /** An open with parts: `base` and `count` of the new allotment, both 0 if no part got new ids. */
  partsOpened(shard: number, counter: number, base: number, count: number, time: number, parts: PartAnswers): void;
  /** The producer is known: the highest sequence that it has used, 0 if none. A refusal comes as `openRefused`. */
  producerOpened(shard: number, counter: number, lastSequence: number): void;
  /**
   * Where an allotment stands after a close or a revoke (or a node-started that revoked it). The subject is names[start, end).
   * `applied`: the command did what it says, now or before. A repeated close of something at or below `settled` answers SETTLED and
   * not applied: the store knows. `count`: 0 where there is no such allotment any more.
   */
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
  ): void;
  /** A node-started took effect: from here on only this incarnation of the node may open. `revoked`: allotments it revoked. */
  nodeStarted(node: number, incarnationLow: number, incarnationHigh: number, revoked: number): void;
  /** `first` of the subject after a trim; 0 if there is no such subject. */
  trimmed(names: Uint8Array, start: number, end: number, hash: number, first: number): void;
}

const nothing = (): void => undefined;
/** Who hears of nothing: of an entry that only the state counts of. */
export const NO_SINK: AllotSink = {
  origin: nothing,
  moved: nothing,
  born: nothing,
  opened: nothing,
  openRefused: nothing,
  partsOpened: nothing,
  producerOpened: nothing,
  verdict: nothing,
  nodeStarted: nothing,
  trimmed: nothing,
};
