/** Thread entry: a real Raft node (its log on the disk, its port) that is asked for allotments by a closed loop in the same thread. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { parentPort, workerData } from 'node:worker_threads';
import { closeSize, openPartsSize, partSize, writeClose, writeOpenParts, writePart } from '../../src/allot/commands.ts';
import { AllotVerdict, type PartAnswers, PartVerdict } from '../../src/allot/verdicts.ts';
import { defined } from '../../src/base/assert.ts';
import { subjectHash } from '../../src/base/subject.ts';
import { createDoorbell, Doorbell } from '../../src/shm/doorbell.ts';
import { openRaftNode } from '../../src/workers/raft/open-node.ts';
import { RaftCounters } from '../../src/workers/raft/raft-counters.ts';
import type { AnswerPort, RaftNode } from '../../src/workers/raft/raft-node.ts';
import { loadHistograms, newHistogram, record } from '../lib/histogram.ts';
import type { FromRaftWorker, RaftWorkerData, ToRaftWorker } from './messages.ts';

const port = defined(parentPort, 'raft-worker.ts is the entry point of a worker thread');
const data = workerData as RaftWorkerData;
const tell = (message: FromRaftWorker): void => port.postMessage(message);

/** Commands of one round; a round that has more makes two runs. */
const SCRATCH_BYTES = 1 << 20;
const HEARTBEAT_MS = 100;
/** Of slots that nobody asks for here. */
const OWNERS_BYTES = 1_024;

const ignore = (): void => undefined;

/** Opens an allotment for each of its slots, closes it when the log has answered, and opens the slot's next one when the close is applied. */
class Load implements AnswerPort {
  readonly #names: Uint8Array[] = [];
  readonly #hashes: number[] = [];
  readonly #producers: Uint8Array[] = [];
  readonly #sequences: Float64Array;
  readonly #openedAt: Float64Array;
  readonly #bytes = new Uint8Array(SCRATCH_BYTES);
  readonly #view = new DataView(this.#bytes.buffer);
  readonly #idle: number[] = [];
  readonly #subjectOf: Uint32Array;
  #used = 0;
  #node: RaftNode | null = null;
  #isOn = false;
  #next = 0;
  open = 0;
  done = 0;
  latencies = newHistogram();

  constructor() {
    for (let i = 0; i < data.subjects; i++) {
      const name = Buffer.from(`perf.subject.${i}`);
      this.#names.push(name);
      this.#hashes.push(subjectHash(name, 0, name.length));
    }
    for (let i = 0; i < data.inFlight; i++) {
      this.#producers.push(Buffer.from(`${data.name}-producer-${i}`));
      this.#idle.push(i);
    }
    this.#sequences = new Float64Array(data.inFlight);
    this.#openedAt = new Float64Array(data.inFlight);
    this.#subjectOf = new Uint32Array(data.inFlight);
  }

  begin(node: RaftNode): void {
    this.#node = node;
    this.#isOn = true;
  }

  end(): void {
    this.#isOn = false;
  }

  /** Everything that came to be asked for in a round goes out as one piece, as the Raft thread does with its rings. */
  flush(): number {
    if (this.#isOn) while (this.#idle.length > 0) this.#request(this.#idle.pop() as number);
    const { length } = this.#bytes.subarray(0, this.#used);
    if (length === 0 || this.#node === null) return 0;
    if (!this.#node.propose([this.#bytes.slice(0, this.#used)])) return 0;
    this.#used = 0;
    return length;
  }

  #request(slot: number): void {
    const subject = this.#next++ % this.#names.length;
    const name = this.#names[subject] as Uint8Array;
    const producer = this.#producers[slot] as Uint8Array;
    this.#room(openPartsSize(name.length, false) + partSize(producer.length));
    const sequence = (this.#sequences[slot] as number) + 1;
    this.#sequences[slot] = sequence;
    this.#subjectOf[slot] = subject;
    this.#openedAt[slot] = performance.now();
    const hash = this.#hashes[subject] as number;
    const at = writeOpenParts(this.#view, this.#bytes, this.#used, name, hash, 0, slot, 1, 300, 0, -1, 1);
    this.#used = writePart(this.#view, this.#bytes, at, 1, producer, sequence, sequence);
    this.open += 1;
  }

  #room(bytes: number): void {
    if (this.#used + bytes > SCRATCH_BYTES)
      throw new Error(`more than ${SCRATCH_BYTES} bytes of commands wait: lower --in-flight`);
  }

  partsOpened(_shard: number, slot: number, base: number, _time: number, parts: PartAnswers): void {
    if (parts.verdict[0] !== PartVerdict.ALLOTTED)
      throw new Error(`an open was answered with verdict ${parts.verdict[0]}`);
    const subject = this.#subjectOf[slot] as number;
    const name = this.#names[subject] as Uint8Array;
    this.#room(closeSize(name.length));
    const hash = this.#hashes[subject] as number;
    this.#used = writeClose(this.#view, this.#bytes, this.#used, name, hash, base, AllotVerdict.STORED);
  }

  closed(_shard: number, slot: number, isApplied: boolean): void {
    if (!isApplied) throw new Error('a close was refused');
    record(this.latencies, (performance.now() - (this.#openedAt[slot] as number)) * 1_000);
    this.open -= 1;
    this.done += 1;
    this.#idle.push(slot);
  }

  openRefused(_shard: number, _counter: number, reason: number): void {
    throw new Error(`an open was refused with reason ${reason}`);
  }
  readonly opened = ignore;
  readonly producerOpened = ignore;
  readonly revoked = ignore;
  readonly gone = ignore;
  readonly trimmed = ignore;
  readonly onReadable = ignore;
  readonly moved = ignore;
  readonly born = ignore;
  readonly restored = ignore;
  mark(): boolean {
    return false;
  }
}

const failed = (error: unknown): void => tell({ kind: 'failed', why: (error as Error).stack ?? String(error) });

try {
  await loadHistograms();
  mkdirSync(join(data.folder, 'raft'), { recursive: true });
  const doorbell = new Doorbell(createDoorbell());
  const counters = new RaftCounters();
  const signal = { stopped: false };
  const { node } = await openRaftNode(
    {
      dataDirectory: data.folder,
      nodeName: data.name,
      instanceId: Buffer.from(data.name).toString('hex').padEnd(32, '0'),
      subjectsMax: 1_000_000,
      producersMax: 1_000_000,
      openPerNodeMax: 1_000_000,
      snapshotEntries: Number.MAX_SAFE_INTEGER,
      snapshotBytes: 512 * 2 ** 20,
      catchUpEntries: 4_096,
      acceptClock: false,
      hasDatabase: true,
      heartbeatMs: HEARTBEAT_MS,
      electionMs: 1_000,
      counters: counters.buffer,
      shardsMax: 1,
      owners: new SharedArrayBuffer(OWNERS_BYTES),
      doorbell: createDoorbell(),
      mainDoorbell: createDoorbell(),
      failpoints: '',
      cluster: {
        clusterId: data.clusterId,
        listen: { host: '127.0.0.1', port: 0 },
        raftAdvertise: null,
        grpcAdvertise: `${data.name}.perf:8081`,
        votersMax: 3,
        joining: data.joining,
      },
    },
    {
      report: () => undefined,
      onFatal: failed,
      onLeader: () => undefined,
      onListening: () => undefined,
      onAnswersLost: () => failed(new Error('answers were lost to a snapshot')),
      wake: () => doorbell.poke(),
    },
  );
  const load = new Load();
  node.answerTo(load);
  let utilization = performance.eventLoopUtilization();
  let onEnded: (() => void) | null = null;
  const work = (): number => {
    const done = load.flush() + node.work();
    if (onEnded !== null && load.open === 0) {
      onEnded();
      onEnded = null;
    }
    return done;
  };
  const ticks = setInterval(() => {
    node.tick();
    doorbell.poke();
  }, HEARTBEAT_MS);
  doorbell.run(work, signal).then(() => clearInterval(ticks), failed);

  const answer = (message: ToRaftWorker): void => {
    switch (message.kind) {
      case 'start':
        node.start().then(() => tell({ kind: 'started' }), failed);
        return;
      case 'add':
        node.change({ kind: 'add', member: message.member }).then(({ reason }) => {
          if (reason === null) tell({ kind: 'added' });
          else failed(new Error(reason));
        }, failed);
        return;
      case 'voters': {
        const voters = node.cluster().members.filter(({ isVoter }) => isVoter).length;
        tell({ kind: 'voters', voters });
        return;
      }
      case 'run':
        load.begin(node);
        doorbell.poke();
        tell({ kind: 'running' });
        return;
      case 'measure': {
        const now = performance.eventLoopUtilization();
        const { latencies } = load;
        load.latencies = newHistogram();
        tell({
          kind: 'measured',
          counts: {
            atMs: performance.now(),
            done: load.done,
            entries: counters.get('entries_total'),
            bytes: counters.get('command_bytes_total'),
            syncs: counters.sync.count,
            busy: performance.eventLoopUtilization(now, utilization).utilization,
            term: node.status().term,
            p50Ms: latencies.getValueAtPercentile(50) / 1_000,
            p99Ms: latencies.getValueAtPercentile(99) / 1_000,
          },
        });
        utilization = now;
        return;
      }
      case 'end':
        load.end();
        onEnded = () => tell({ kind: 'ended' });
        doorbell.poke();
        return;
      case 'state': {
        const { applied } = node.status();
        const { open } = node.machine.counts();
        tell({ kind: 'state', applied, hash: node.machine.hash(), open });
        return;
      }
      case 'stop':
        signal.stopped = true;
        doorbell.poke();
        clearInterval(ticks);
        node.close().then(() => tell({ kind: 'stopped' }), failed);
        return;
    }
  };
  port.on('message', (message: ToRaftWorker) => {
    try {
      answer(message);
    } catch (error) {
      failed(error);
    }
  });
  tell({ kind: 'open', own: node.own });
} catch (error) {
  failed(error);
}
