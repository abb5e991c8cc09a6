/** Writers and readers of a cluster whose nodes come and go: when what was acknowledged and delivered, and whether it is all there once. */
import { type Client, ClientError, connect, type Subscription } from '../../src/client/index.ts';
import type { Node } from '../lib/nodes.ts';

/** A call may take as long as several elections. */
const CALL_MS = 60_000;
const READ_BACK_MS = 60_000;

/** Times of events, ms of performance.now(), in order. */
export class Times {
  readonly #now: () => number;
  readonly #at: number[];

  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
    this.#at = [now()];
  }

  add(): void {
    this.#at.push(this.#now());
  }

  /** The longest time without an event that reaches into [from, to]; what has not ended counts up to `to`. */
  longestGap(from: number, to: number): number {
    let longest = 0;
    // Looked at from the end: windows are of the recent past.
    let later = to;
    for (let i = this.#at.length - 1; i >= 0; i--) {
      const at = this.#at[i] as number;
      if (at > to) continue;
      longest = Math.max(longest, later - at);
      if (at < from) break;
      later = at;
    }
    return longest;
  }
}

export interface Failures {
  /** Errors that reached a caller behind the client's own retries. */
  surfaced: number;
  /** Of them, those after which the caller may not just try again. */
  final: number;
  readonly reasons: Map<string, number>;
}

class Writer {
  readonly acks = new Times();
  readonly #client: Client;
  readonly #id: string;
  readonly #failures: Failures;
  /** Id by sequence; place 0 is not used. */
  readonly ids: number[] = [0];
  readonly subject: string;

  /** The one that it keeps to; null: any that answers. */
  readonly node: Node | null;

  constructor(id: string, subject: string, node: Node | null, addresses: readonly string[], failures: Failures) {
    this.#client = connect(node === null ? addresses : node.address, { timeoutMs: CALL_MS });
    this.#id = id;
    this.node = node;
    this.subject = subject;
    this.#failures = failures;
  }

  get repeats(): number {
    const { attempts, calls } = this.#client.stats;
    return attempts - calls;
  }

  async run(signal: AbortSignal): Promise<void> {
    for (let sequence = 1; !signal.aborted; ) {
      try {
        const producer = { id: this.#id, sequence };
        this.ids.push(await this.#client.publish(this.subject, `${this.#id}:${sequence}`, { producer }));
        this.acks.add();
        sequence += 1;
      } catch (error) {
        this.#note(error);
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    }
  }

  #note(error: unknown): void {
    const reason = error instanceof ClientError ? `${error.name} ${error.reason ?? error.status}` : String(error);
    this.#failures.surfaced += 1;
    // With a sequence a repeat is safe also where the outcome is not known.
    if (!(error instanceof ClientError) || (error.outcome === 'none' && !error.retryable)) this.#failures.final += 1;
    this.#failures.reasons.set(reason, (this.#failures.reasons.get(reason) ?? 0) + 1);
  }

  close(): Promise<void> {
    return this.#client.close();
  }
}

class Reader {
  readonly node: Node;
  /** By subject. */
  readonly #times = new Map<string, Times>();
  readonly #subjects: readonly string[];
  #client: Client;
  #subscription: Subscription | null = null;

  constructor(node: Node, subjects: readonly string[]) {
    this.node = node;
    this.#subjects = subjects;
    this.#client = connect(node.address);
  }

  /** From now on. Of a node that comes back: again. */
  begin(): void {
    this.#client = connect(this.node.address);
    for (const subject of this.#subjects) this.#times.set(subject, new Times());
    const subscription = this.#client.subscribe(this.#subjects);
    this.#subscription = subscription;
    void (async () => {
      for await (const { subject } of subscription) this.#times.get(subject)?.add();
    })().catch(() => undefined);
  }

  async end(): Promise<void> {
    await this.#subscription?.close().catch(() => undefined);
    await this.#client.close().catch(() => undefined);
  }

  longestGap(from: number, to: number): number {
    return Math.max(...[...this.#times.values()].map((times) => times.longestGap(from, to)));
  }
}

export interface ReadBack {
  readonly acknowledged: number;
  readonly read: number;
  readonly lost: number;
  readonly doubled: number;
}

export interface WriteLoadOptions {
  /** That keep to a node, for each node; and that take any. */
  readonly pinned: number;
  readonly roaming: number;
  readonly subjects: number;
}

/** Writers on shared subjects, one call at a time each, and a reader of every subject on each node. */
export class WriteLoad {
  readonly failures: Failures = { surfaced: 0, final: 0, reasons: new Map() };
  readonly #nodes: readonly Node[];
  readonly #writers: readonly Writer[];
  readonly #readers: readonly Reader[];
  readonly #abort = new AbortController();
  readonly #runs: Promise<void>[];

  constructor(nodes: readonly Node[], { pinned, roaming, subjects }: WriteLoadOptions) {
    this.#nodes = nodes;
    const names = Array.from({ length: subjects }, (_, i) => `failover.${i}`);
    const addresses = nodes.map(({ address }) => address);
    const places = [
      ...nodes.flatMap((node) => new Array<Node>(pinned).fill(node)),
      ...new Array<null>(roaming).fill(null),
    ];
    this.#writers = places.map((node, i) => {
      const subject = names[i % subjects] as string;
      return new Writer(`writer-${process.pid}-${i}`, subject, node, addresses, this.failures);
    });
    this.#readers = nodes.map((node) => new Reader(node, names));
    for (const reader of this.#readers) reader.begin();
    this.#runs = this.#writers.map((writer) => writer.run(this.#abort.signal));
  }

  get acknowledged(): number {
    return this.#writers.reduce((sum, { ids }) => sum + ids.length - 1, 0);
  }

  /** Requests that clients have sent again. */
  get repeats(): number {
    return this.#writers.reduce((sum, { repeats }) => sum + repeats, 0);
  }

  /** The longest time that a writer that keeps to one of the nodes was without an acknowledgement; or of those that take any. */
  writeGap(nodes: readonly Node[] | null, from: number, to: number): number {
    const meant = this.#writers.filter(({ node }) =>
      nodes === null ? node === null : node !== null && nodes.includes(node),
    );
    return Math.max(...meant.map(({ acks }) => acks.longestGap(from, to)));
  }

  /** The longest time that a reader of one of the nodes got nothing of a subject. */
  deliveryGap(nodes: readonly Node[], from: number, to: number): number {
    const readers = this.#readers.filter(({ node }) => nodes.includes(node));
    return Math.max(...readers.map((reader) => reader.longestGap(from, to)));
  }

  /** The node has started again. Resolves when its writers have gone on: their connections wait longer with each failure. */
  async back(node: Node): Promise<void> {
    const reader = this.#readers.find((each) => each.node === node);
    await reader?.end();
    reader?.begin();
    const own = this.#writers.filter((writer) => writer.node === node);
    const before = own.map(({ ids }) => ids.length);
    for (const end = performance.now() + CALL_MS; own.some(({ ids }, i) => ids.length === before[i]); ) {
      if (performance.now() > end) throw new Error(`the writers on ${node.nodeId} do not go on`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  /** Ends the writers, and reads all that there is: what was acknowledged must be there once, under its id. */
  async end(): Promise<ReadBack> {
    this.#abort.abort();
    await Promise.all(this.#runs);
    await Promise.all(this.#readers.map((reader) => reader.end()));
    const seen = new Map<string, number>();
    let doubled = 0;
    const client = connect(this.#nodes[0]?.address as string);
    try {
      for (const subject of new Set(this.#writers.map((writer) => writer.subject))) {
        const { head } = await client.subject(subject);
        const subscription = client.subscribe(subject, { start: 'earliest' });
        const timer = setTimeout(() => void subscription.close(), READ_BACK_MS);
        for await (const { id, text } of subscription) {
          if (seen.has(text)) doubled += 1;
          seen.set(text, id);
          if (id >= head) break;
        }
        clearTimeout(timer);
      }
    } finally {
      await client.close();
    }
    let lost = 0;
    for (const [i, { ids }] of this.#writers.entries()) {
      for (let sequence = 1; sequence < ids.length; sequence++) {
        if (seen.get(`writer-${process.pid}-${i}:${sequence}`) !== ids[sequence]) lost += 1;
      }
    }
    return { acknowledged: this.acknowledged, read: seen.size, lost, doubled };
  }

  async close(): Promise<void> {
    this.#abort.abort();
    await Promise.all(this.#readers.map((reader) => reader.end()));
    await Promise.all(this.#writers.map((writer) => writer.close()));
  }
}
