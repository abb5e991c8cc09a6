/** What is done to a cluster of our nodes and real agents; after each round all see all again. */
import assert from 'node:assert/strict';
import { Prng } from '../../src/base/prng.ts';
import { SerfAgent, type SerfProgram } from '../servers/serf.ts';
import { pause } from '../support/until.ts';
import { OurPeer, type Peer } from './gossip-peers.ts';
import type { GossipRig } from './gossip-rig.ts';

const PAUSE_MS = 6_000;
const LOSS_PERCENT = 20;
const LOSS_MS = 6_000;
const BLOCK_MS = 5_000;

export interface Round {
  readonly kind: string;
  /** In a network of its own only. */
  readonly needsNetwork?: boolean;
  run(rig: GossipRig, dice: Dice): Promise<void>;
}

/** Who a round is about, and what else is left open in it. */
export class Dice {
  readonly prng: Prng;
  readonly #chosen: Peer | null;

  /** `chosen`: the one to take wherever it may be taken. */
  constructor(seed: number, chosen: Peer | null = null) {
    this.prng = new Prng(seed);
    this.#chosen = chosen;
  }

  any<T extends Peer>(list: readonly T[]): T {
    const chosen = list.find((one) => one === this.#chosen);
    return chosen ?? (list[this.prng.nextBelow(list.length)] as T);
  }
}

function ours(rig: GossipRig): OurPeer[] {
  return rig.peers.filter((peer) => peer instanceof OurPeer);
}

async function eventRound(rig: GossipRig, dice: Dice): Promise<void> {
  const payload = String(dice.prng.nextUint32());
  await dice.any(rig.peers).event('deploy', payload);
  const heard = (peer: Peer): number => peer.events().filter((event) => event.payload === payload).length;
  await rig.see('an event reaches everybody', async () => {
    const deaf = rig.peers.find((peer) => heard(peer) === 0);
    return deaf === undefined ? null : `${deaf.node} has not heard ${payload}`;
  });
  for (const peer of rig.peers) assert.equal(heard(peer), 1, `${peer.node} heard an event more than once`);
}

async function queryRound(rig: GossipRig, dice: Dice): Promise<void> {
  const asker = dice.any(rig.peers);
  // One packet may be lost to a machine that is busy; asking again is what an asker does.
  await rig.see('everybody answers a query', async () => {
    const answers = await asker.query('whoami');
    const silent = rig.peers.find(({ node }) => answers[node] !== node);
    return silent === undefined ? null : `${silent.node} did not answer ${asker.node}`;
  });
}

async function rotateRound(rig: GossipRig, dice: Dice): Promise<void> {
  const [old, fresh] = [rig.key, SerfAgent.keygen()];
  const driver = dice.any(rig.peers);
  const step = async (name: 'install' | 'use' | 'remove', key: string): Promise<void> =>
    rig.see(`${driver.node}: ${name} of a key`, async () => {
      try {
        await driver.changeKeys(name, key);
        return null;
      } catch (error) {
        return String(error);
      }
    });
  await step('install', fresh);
  await step('use', fresh);
  await step('remove', old);
  rig.key = fresh;
  for (const peer of rig.peers) assert.deepEqual(peer.keys(), [fresh], `${peer.node} keeps another keyring`);
}

async function tagsRound(rig: GossipRig, dice: Dice): Promise<void> {
  const one = dice.any(ours(rig));
  const value = String(dice.prng.nextUint32());
  assert.equal(await one.process.call({ do: 'tags', tags: { role: 'broker', value } }), null);
  await rig.see('everybody sees the new tags', async () => {
    for (const peer of rig.peers) {
      const tags = (await peer.view()).get(one.node)?.tags;
      if (tags?.value !== value || tags.cluster !== 'test') return `${peer.node} sees ${JSON.stringify(tags)}`;
    }
    return null;
  });
}

async function joinRound(rig: GossipRig, dice: Dice): Promise<void> {
  const name = `guest-${dice.prng.nextUint32()}`;
  const guest = dice.prng.chance(1, 2)
    ? await rig.addOurs(name)
    : await rig.addAgent(name, rig.programs[dice.prng.nextBelow(rig.programs.length)] as SerfProgram);
  await rig.agree();
  await guest.leave();
  rig.drop(guest);
  await rig.seeAs(name, 'left');
}

async function killRound(rig: GossipRig, dice: Dice): Promise<void> {
  const victim = dice.any(rig.peers);
  await victim.kill();
  await rig.seeAs(victim.node, 'failed');
  await victim.restart();
}

async function quickRestartRound(rig: GossipRig, dice: Dice): Promise<void> {
  await dice.any(rig.peers).restart();
}

async function pauseRound(rig: GossipRig, dice: Dice): Promise<void> {
  const victim = dice.any(rig.peers);
  victim.pause();
  try {
    await pause(PAUSE_MS);
  } finally {
    victim.resume();
  }
}

/** [G5] Whoever stood still calls nobody failed for it. */
async function blockRound(rig: GossipRig, dice: Dice): Promise<void> {
  const one = dice.any(ours(rig));
  const before = (await one.process.figures()).rules.failures;
  await one.process.call({ do: 'block', ms: BLOCK_MS });
  await rig.agree();
  assert.equal((await one.process.figures()).rules.failures, before, `${one.node} called somebody failed`);
}

async function lossRound(rig: GossipRig): Promise<void> {
  rig.network?.set({ lossPercent: LOSS_PERCENT });
  try {
    await pause(LOSS_MS);
  } finally {
    rig.network?.set();
  }
}

/** [G4] The same name at another address. */
async function moveRound(rig: GossipRig, dice: Dice): Promise<void> {
  const one = dice.any(ours(rig));
  const at = one.address.lastIndexOf(':');
  const [host, port] = [one.address.slice(0, at), Number(one.address.slice(at + 1))];
  // It was failed long since, or is taken for alive still.
  if (dice.prng.chance(1, 2)) {
    await one.kill();
    await rig.seeAs(one.node, 'failed');
  }
  await one.process.restart({ listen: { host, port: rig.network === null ? 0 : port + 1_000 } });
}

export const ROUNDS: readonly Round[] = [
  { kind: 'event', run: eventRound },
  { kind: 'query', run: queryRound },
  { kind: 'rotate', run: rotateRound },
  { kind: 'tags', run: tagsRound },
  { kind: 'join and leave', run: joinRound },
  { kind: 'kill -9', run: killRound },
  { kind: 'restart', run: quickRestartRound },
  { kind: 'SIGSTOP', run: pauseRound },
  { kind: 'blocked', run: blockRound },
  { kind: 'new address', run: moveRound },
  { kind: '20 % loss', needsNetwork: true, run: lossRound },
];

/** One round and what has to hold behind it. Rejects with what did not. */
export async function runRound(rig: GossipRig, round: Round, dice: Dice): Promise<void> {
  await round.run(rig, dice);
  await rig.agree();
}
