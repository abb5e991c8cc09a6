import type { Address } from '../types.ts';
import { plainHost } from './addresses.ts';
import { LAMPORT_MAX, NODE_NAME_BYTES_MAX, SNAPSHOT_BYTES_MAX, SNAPSHOT_NODES_MAX } from './limits.ts';
import type { JoinTarget, RestoredSerf, SerfEvent } from './types.ts';

/** Bytes that a node is taken to have, and how many times what is needed a file may grow to before it is written anew (serf/snapshot.go). */
const BYTES_PER_NODE = 128;
const COMPACTION_THRESHOLD = 2;
/** Below it a file is not written anew (serf.go snapshotSizeLimit). */
export const SNAPSHOT_COMPACT_BYTES_MIN = 128 * 1024;
const LINE_LENGTH_MAX = 512;

/** Newest Lamport times seen: `Serf.times`. */
export interface SeenTimes {
  readonly time: number;
  readonly eventTime: number;
  readonly queryTime: number;
}

/**
 * Serf's snapshot file (hashicorp/serf serf/snapshot.go): lines that are appended, so that a node that starts again finds the others by itself and does not
 * hear old events again. `alive: NAME HOST:PORT`, `not-alive: NAME`, `clock: N`, `event-clock: N`, `query-clock: N`, `leave`, and comments with `#`.
 *
 * Each method returns what to append, '' for nothing. When `isCompactionDue`, the file is to be replaced by `compact()`.
 */
export class SerfSnapshot {
  readonly #rejoinsAfterLeave: boolean;
  readonly #nodes = new Map<string, string>();
  #times: SeenTimes = { time: 0, eventTime: 0, queryTime: 0 };
  #bytes = 0;
  #isLeaving = false;

  /** `rejoinsAfterLeave`: a node that left finds its cluster again when it starts. `text`: the file, up to SNAPSHOT_BYTES_MAX of it are read. */
  constructor(text: string, rejoinsAfterLeave: boolean) {
    this.#rejoinsAfterLeave = rejoinsAfterLeave;
    this.#bytes = text.length;
    const lines = text.slice(0, SNAPSHOT_BYTES_MAX).split('\n');
    // What no newline ends was torn.
    for (const line of lines.slice(0, -1)) this.#replay(line);
  }

  /** For SerfOptions.restored. */
  get restored(): RestoredSerf {
    const nodes: JoinTarget[] = [];
    for (const [node, words] of this.#nodes) {
      const address = parseAddress(words);
      if (address !== null) nodes.push({ node, address });
    }
    return { ...this.#times, nodes };
  }

  get isCompactionDue(): boolean {
    const needed = this.#nodes.size * BYTES_PER_NODE * COMPACTION_THRESHOLD;
    return this.#bytes > Math.max(needed, SNAPSHOT_COMPACT_BYTES_MIN);
  }

  onEvent(event: SerfEvent): string {
    switch (event.kind) {
      case 'memberJoin':
        return this.#append(event.members.map(({ node, address }) => this.#alive(node, address)).join(''));
      case 'memberLeave':
      case 'memberFailed':
        return this.#append(event.members.map(({ node }) => this.#notAlive(node)).join(''));
      default:
        return '';
    }
  }

  /** At every member event and now and then: upstream twice a second. */
  onTimes(times: SeenTimes): string {
    let lines = '';
    if (times.time > this.#times.time) lines += `clock: ${times.time}\n`;
    if (times.eventTime > this.#times.eventTime) lines += `event-clock: ${times.eventTime}\n`;
    if (times.queryTime > this.#times.queryTime) lines += `query-clock: ${times.queryTime}\n`;
    if (lines === '' || this.#isLeaving) return '';
    this.#times = {
      time: Math.max(times.time, this.#times.time),
      eventTime: Math.max(times.eventTime, this.#times.eventTime),
      queryTime: Math.max(times.queryTime, this.#times.queryTime),
    };
    return this.#append(lines);
  }

  /** Nothing is appended behind it. */
  leave(): string {
    const line = this.#append('leave\n');
    this.#isLeaving = true;
    if (!this.#rejoinsAfterLeave) this.#nodes.clear();
    return line;
  }

  /** The whole file, as short as it can be. */
  compact(): string {
    let text = '';
    for (const [node, address] of this.#nodes) text += `alive: ${node} ${address}\n`;
    const { time, eventTime, queryTime } = this.#times;
    text += `clock: ${time}\nevent-clock: ${eventTime}\nquery-clock: ${queryTime}\n`;
    if (this.#isLeaving && !this.#rejoinsAfterLeave) text += 'leave\n';
    this.#bytes = text.length;
    return text;
  }

  #append(lines: string): string {
    if (this.#isLeaving) return '';
    this.#bytes += lines.length;
    return lines;
  }

  #alive(node: string, address: Address): string {
    const words = formatAddress(address);
    if (!isWritable(node) || !this.#remember(node, words)) return '';
    return `alive: ${node} ${words}\n`;
  }

  #notAlive(node: string): string {
    return this.#nodes.delete(node) ? `not-alive: ${node}\n` : '';
  }

  #remember(node: string, words: string): boolean {
    if (this.#isLeaving || (!this.#nodes.has(node) && this.#nodes.size >= SNAPSHOT_NODES_MAX)) return false;
    this.#nodes.set(node, words);
    return true;
  }

  /** What is not understood is passed over. */
  #replay(line: string): void {
    const at = line.indexOf(': ');
    const rest = line.slice(at + 2);
    if (line.length > LINE_LENGTH_MAX) return;
    if (line === 'leave') this.#replayLeave();
    switch (line.slice(0, Math.max(at, 0))) {
      case 'alive': {
        const space = rest.lastIndexOf(' ');
        if (space >= 0 && isWritable(rest.slice(0, space))) this.#remember(rest.slice(0, space), rest.slice(space + 1));
        return;
      }
      case 'not-alive':
        this.#nodes.delete(rest);
        return;
      case 'clock':
        this.#times = { ...this.#times, time: parseTime(rest) ?? this.#times.time };
        return;
      case 'event-clock':
        this.#times = { ...this.#times, eventTime: parseTime(rest) ?? this.#times.eventTime };
        return;
      case 'query-clock':
        this.#times = { ...this.#times, queryTime: parseTime(rest) ?? this.#times.queryTime };
    }
  }

  #replayLeave(): void {
    if (this.#rejoinsAfterLeave) return;
    this.#nodes.clear();
    this.#times = { time: 0, eventTime: 0, queryTime: 0 };
  }
}

/** A name with a newline in it would write lines of its own. */
function isWritable(node: string): boolean {
  return node.length <= NODE_NAME_BYTES_MAX && !/\p{Cc}/u.test(node);
}

function parseTime(digits: string): number | null {
  const time = /^\d{1,20}$/.test(digits) ? Number(digits) : Number.NaN;
  return time <= LAMPORT_MAX ? time : null;
}

/** As Go writes a net.TCPAddr. */
function formatAddress(address: Address): string {
  const [host, port] = [plainHost(address.host), address.port];
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}

function parseAddress(words: string): Address | null {
  const found = /^(?:\[([0-9A-Fa-f:.]{2,45})\]|([0-9.]{7,15})):(\d{1,5})$/.exec(words);
  const host = found?.[1] ?? found?.[2];
  const port = Number(found?.[3]);
  return host !== undefined && port >= 1 && port <= 65_535 ? { host, port } : null;
}
