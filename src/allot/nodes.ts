import { assert } from '../base/assert.ts';
import { isPlanted } from '../base/planted.ts';
import type { AllotmentPool } from './allotment-pool.ts';

/** Nodes remembered. Beyond it the one that started longest ago and has nothing unresolved is forgotten: it has to say again that it started. */
export const NODES_MAX = 4096;

/** A node that has said that it started. */
export interface NodeRow {
  name: Uint8Array;
  /** The latest incarnation: only it may open. */
  incarnationLow: number;
  incarnationHigh: number;
  /** Raft index of its last node-started. */
  startedIndex: number;
  /** The last run of the latest incarnation that was applied; 0 before its first. */
  lastRun: number;
  /** Its allotments that are open or revoked: how many, and the ends of their list. */
  unresolved: number;
  listFirst: number;
  listLast: number;
}

/** Nodes by number. Numbers are equal on every replica. */
export class NodeTable {
  readonly rows: NodeRow[] = [];

  /** Number of the node named bytes[start, end), or -1. A linear search: once per run of commands, among a handful of nodes. */
  find(bytes: Uint8Array, start: number, end: number): number {
    for (let number = 0; number < this.rows.length; number++) {
      const name = (this.rows[number] as NodeRow).name;
      if (name.length === end - start && sameBytes(name, bytes, start)) return number;
    }
    return -1;
  }

  get(number: number): NodeRow {
    const row = this.rows[number];
    assert(row !== undefined, 'no such node');
    return row;
  }

  /** Of a node's latest incarnation. */
  isNextRun(number: number, run: number): boolean {
    const { lastRun } = this.get(number);
    return run === lastRun + 1 || (run <= lastRun && isPlanted('R25-run-twice'));
  }

  ran(number: number, run: number): void {
    const row = this.get(number);
    row.lastRun = Math.max(row.lastRun, run);
  }

  /** A row for a new node, or -1 if NODES_MAX nodes all have something unresolved. */
  tryAdd(name: Uint8Array): number {
    const row = newRow(name);
    if (this.rows.length < NODES_MAX) {
      this.rows.push(row);
      return this.rows.length - 1;
    }
    let oldest = -1;
    for (let number = 0; number < this.rows.length; number++) {
      const candidate = this.rows[number] as NodeRow;
      if (candidate.unresolved > 0) continue;
      if (oldest < 0 || candidate.startedIndex < this.get(oldest).startedIndex) oldest = number;
    }
    if (oldest >= 0) this.rows[oldest] = row;
    return oldest;
  }

  /** Puts a slot at the end of its node's list. */
  link(pool: AllotmentPool, slot: number, number: number): void {
    const row = this.get(number);
    pool.setNode(slot, number);
    pool.setNodePrevious(slot, row.listLast);
    pool.setNodeNext(slot, 0);
    if (row.listLast === 0) row.listFirst = slot;
    else pool.setNodeNext(row.listLast, slot);
    row.listLast = slot;
    row.unresolved += 1;
  }

  unlink(pool: AllotmentPool, slot: number): void {
    const row = this.get(pool.node(slot));
    const previous = pool.nodePrevious(slot);
    const next = pool.nodeNext(slot);
    if (previous === 0) row.listFirst = next;
    else pool.setNodeNext(previous, next);
    if (next === 0) row.listLast = previous;
    else pool.setNodePrevious(next, previous);
    row.unresolved -= 1;
    assert(row.unresolved >= 0, 'a node has fewer than no allotments');
  }
}

export function newRow(name: Uint8Array): NodeRow {
  return {
    name,
    incarnationLow: 0,
    incarnationHigh: 0,
    startedIndex: 0,
    lastRun: 0,
    unresolved: 0,
    listFirst: 0,
    listLast: 0,
  };
}

function sameBytes(name: Uint8Array, bytes: Uint8Array, start: number): boolean {
  for (let i = 0; i < name.length; i++) {
    if (name[i] !== bytes[start + i]) return false;
  }
  return true;
}
