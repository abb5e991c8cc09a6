import { createHash } from 'node:crypto';
import { BrokerError } from '../../base/errors.ts';
import type { KeyResponse } from '../../gossip/serf/messages.ts';
import type { KeyOperation, QueryStart, QueryWatcher } from '../../gossip/serf/types.ts';
import type { GossipKeyFailure, GossipKeysRequest, GossipKeysResponse } from '../../grpc/gen/broker/v1/cluster.ts';
import { ROLE, TAGS } from './gossip-view.ts';
import type { GossipMember } from './types.ts';

/** AES-128, -192 and -256. */
const KEY_BYTES: readonly number[] = [16, 24, 32];
const FINGERPRINT_DIGITS = 16;
const FINGERPRINT = /^[0-9a-f]{4,64}$/;
const OPERATIONS: Readonly<Record<string, KeyOperation>> = {
  install: 'install-key',
  use: 'use-key',
  remove: 'remove-key',
};
/** Nodes that are named; there may be thousands. */
const FAILURES_MAX = 32;

/** What changing keys needs of gossip. */
export interface KeyQueries {
  /** Of this node, the primary one first. */
  keys(): readonly Uint8Array[];
  view(): readonly GossipMember[];
  queryKeys(operation: KeyOperation | 'list-keys', key: Uint8Array | null, watcher: QueryWatcher): QueryStart;
  /** An answer to it; null: it is none. */
  decode(payload: Uint8Array): KeyResponse | null;
}

/** What is shown of a key. */
export function fingerprintOf(key: Uint8Array): string {
  return createHash('sha256').update(key).digest('hex').slice(0, FINGERPRINT_DIGITS);
}

/** Lists or changes the keys of every node that gossips (serf keymanager.go), and lists them behind a change. BrokerError. */
export async function changeKeys(gossip: KeyQueries, request: GossipKeysRequest): Promise<GossipKeysResponse> {
  if (gossip.keys().length === 0) throw new BrokerError('GOSSIP_OFF');
  if (request.action === 'list') return await list(gossip, []);
  const operation = OPERATIONS[request.action];
  if (operation === undefined) {
    throw new BrokerError('GOSSIP_KEY_INVALID', 'action must be list, install, use or remove');
  }
  const { failures, isUnsaid } = await ask(gossip, operation, await keyOf(gossip, request));
  return await list(gossip, isUnsaid ? [] : failures);
}

async function keyOf(gossip: KeyQueries, { action, key, fingerprint }: GossipKeysRequest): Promise<Uint8Array> {
  if (key.length > 0) {
    if (!KEY_BYTES.includes(key.length)) {
      throw new BrokerError('GOSSIP_KEY_INVALID', `a key has 16, 24 or 32 bytes, this one ${key.length}`);
    }
    return key;
  }
  if (action === 'install' || !FINGERPRINT.test(fingerprint)) {
    const what = action === 'install' ? 'key is missing' : 'key, or at least 4 digits of its fingerprint, is missing';
    throw new BrokerError('GOSSIP_KEY_INVALID', what);
  }
  const isMeant = (each: Uint8Array): boolean => fingerprintOf(each).startsWith(fingerprint);
  let found = gossip.keys().filter(isMeant);
  // Gone here, and left on a node that was not there: the step is done again.
  if (found.length === 0) found = (await everyKey(gossip)).filter(isMeant);
  const [only] = found;
  if (only !== undefined && found.length === 1) return only;
  const words = found.length === 0 ? 'no node has a key' : 'there are several keys';
  throw new BrokerError('GOSSIP_KEY_INVALID', `${words} whose fingerprint begins with ${fingerprint}`);
}

/** Of all nodes that answer, each once. */
async function everyKey(gossip: KeyQueries): Promise<Uint8Array[]> {
  const { answers } = await ask(gossip, 'list-keys', null);
  return [...new Set([...answers.values()].flatMap(({ keys }) => keys))].map((key) => Buffer.from(key, 'base64'));
}

interface Asked {
  readonly answers: ReadonlyMap<string, KeyResponse>;
  readonly failures: readonly GossipKeyFailure[];
  /** Nobody has said anything. */
  readonly isUnsaid: boolean;
}

function ask(gossip: KeyQueries, operation: KeyOperation | 'list-keys', key: Uint8Array | null): Promise<Asked> {
  const answers = new Map<string, KeyResponse>();
  return new Promise((resolve, reject) => {
    let isOver = false;
    const end = (): void => {
      if (isOver) return;
      isOver = true;
      const failures = [...answers]
        .filter(([, { isDone }]) => !isDone)
        .slice(0, FAILURES_MAX)
        .map(([nodeId, { message }]) => ({ nodeId, message }));
      resolve({ answers, failures, isUnsaid: answers.size === 0 });
    };
    const started = gossip.queryKeys(operation, key, {
      onResponse: (node, payload) => {
        const answer = gossip.decode(payload);
        if (answer === null || isOver) return;
        answers.set(node, answer);
        // All have answered: nothing is left to wait for.
        if (answers.size >= aliveOf(gossip)) end();
      },
      onDone: end,
    });
    if ('refusal' in started) reject(new BrokerError('GOSSIP_OFF', started.refusal));
  });
}

async function list(gossip: KeyQueries, failures: readonly GossipKeyFailure[]): Promise<GossipKeysResponse> {
  const { answers, failures: more } = await ask(gossip, 'list-keys', null);
  const keys = new Map<string, { fingerprint: string; nodes: number; primaryOn: number }>();
  for (const { keys: theirs, primaryKey } of answers.values()) {
    for (const key of theirs) {
      const fingerprint = fingerprintOf(Buffer.from(key, 'base64'));
      const row = keys.get(fingerprint) ?? { fingerprint, nodes: 0, primaryOn: 0 };
      keys.set(fingerprint, {
        fingerprint,
        nodes: row.nodes + 1,
        primaryOn: row.primaryOn + (key === primaryKey ? 1 : 0),
      });
    }
  }
  return {
    nodes: expected(gossip),
    answered: answers.size,
    failures: [...failures, ...more],
    keys: [...keys.values()].sort((a, b) => b.primaryOn - a.primaryOn || (a.fingerprint < b.fingerprint ? -1 : 1)),
  };
}

function aliveOf(gossip: KeyQueries): number {
  return gossip.view().filter(({ status }) => status === 'alive' || status === 'suspect').length;
}

/** A broker that is called failed has the keys of before, and comes back with them: no step is over without it. */
function expected(gossip: KeyQueries): number {
  const isAway = ({ status, tags }: GossipMember): boolean => status === 'failed' && tags[TAGS.role] === ROLE;
  return aliveOf(gossip) + gossip.view().filter(isAway).length;
}
