/** The data directory of a real broker that holds many acknowledged messages, as it was half-way, as it is, and what is in it. */
import { createHash } from 'node:crypto';
import { cpSync, existsSync, linkSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Prng } from '../../src/base/prng.ts';
import { BrokerProcess, makeDataDirectory } from '../support/broker.ts';
import { BrokerClient } from '../support/client.ts';

const SUBJECTS = Array.from({ length: 12 }, (_, i) => `damage.${i}`);
const IN_FLIGHT = 16;
/** Snapshots, sealed segments and several log segments come of it. */
export const SMALL_FILES = ['--segment-bytes', '1MiB', '--raft-snapshot-entries', '100'];
const FLAGS = [...SMALL_FILES, '--node-id', 'n1', '--log-format', 'json'];

/** Subject -> id -> SHA-1 of the body. */
export type Acked = Map<string, Map<number, string>>;

export function hashOf(body: Uint8Array): string {
  return createHash('sha1').update(body).digest('hex');
}

/** Publishes so many messages through these clients in turn, and writes down what was acknowledged. */
export async function publishMany(
  clients: readonly BrokerClient[],
  prng: Prng,
  count: number,
  acked: Acked,
): Promise<void> {
  let left = count;
  const lane = async (number: number): Promise<void> => {
    const client = clients[number % clients.length] as BrokerClient;
    for (; left > 0; ) {
      left -= 1;
      const subject = SUBJECTS[prng.nextBelow(SUBJECTS.length)] as string;
      // Some fill sectors, some share one.
      const body = Buffer.alloc(16 + prng.nextBelow(prng.chance(1, 4) ? 6_000 : 400), prng.nextBelow(256));
      body.writeUInt32LE(prng.nextUint32(), 0);
      const id = await client.publish({ subject, body });
      const ids = acked.get(subject) ?? new Map<number, string>();
      acked.set(subject, ids.set(id, hashOf(body)));
    }
  };
  await Promise.all(Array.from({ length: IN_FLIGHT }, (_, number) => lane(number)));
}

export class PreparedDirectory implements AsyncDisposable {
  readonly folder: string;
  /** As it was earlier: in part when a broker was stopped, in part in the middle of writing. */
  readonly older: string;
  /** As a broker left it that was stopped. */
  readonly base: string;
  readonly acked: Acked;
  #copies = 0;

  private constructor(folder: string, acked: Acked) {
    this.folder = folder;
    this.older = join(folder, 'older');
    this.base = join(folder, 'base');
    this.acked = acked;
  }

  static async make(prng: Prng, messages: number): Promise<PreparedDirectory> {
    const folder = makeDataDirectory('broker-damage-');
    const acked: Acked = new Map();
    const made = new PreparedDirectory(folder, acked);
    const broker = await BrokerProcess.create({ dataDir: made.base, flags: FLAGS });
    try {
      for (const isFirst of [true, false]) {
        await broker.restart();
        const client = new BrokerClient(broker.address);
        await publishMany([client], prng, messages / 3, acked);
        if (!isFirst) {
          cpSync(made.base, made.older, { recursive: true, filter: (path) => !path.endsWith('LOCK') });
          await publishMany([client], prng, messages / 3, acked);
        }
        client.close();
        await broker.stop();
        if (isFirst) cpSync(made.base, made.older, { recursive: true });
      }
    } finally {
      await broker.kill();
    }
    return made;
  }

  get messages(): number {
    return [...this.acked.values()].reduce((sum, ids) => sum + ids.size, 0);
  }

  /** A copy to be damaged. The reserve is shared: it is 32 MiB of zeros that nobody reads. */
  copy(): string {
    this.#copies += 1;
    const target = mkdtempSync(join(this.folder, `copy-${this.#copies}-`));
    cpSync(this.base, target, { recursive: true, filter: (path) => !path.endsWith('/reserve') });
    const reserve = join(this.base, 'raft', 'reserve');
    if (existsSync(reserve)) linkSync(reserve, join(target, 'raft', 'reserve'));
    return target;
  }

  /** A broker on such a copy. */
  broker(dataDir: string): Promise<BrokerProcess> {
    return BrokerProcess.create({ dataDir, flags: FLAGS, logLinesMax: 4_000 });
  }

  get segments(): string[] {
    return readdirSync(join(this.base, 'segments'));
  }

  [Symbol.asyncDispose](): Promise<void> {
    rmSync(this.folder, { recursive: true, force: true });
    return Promise.resolve();
  }
}
