import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Member as GossipState } from '../../src/gossip/types.ts';
import { type Member, PROTOCOL_VERSION } from '../../src/replica/types.ts';
import { brokersIn, ROLE, raftAddressesIn, TAGS } from '../../src/workers/gossip/gossip-view.ts';
import type { GossipMember } from '../../src/workers/gossip/types.ts';
import { dialList } from '../../src/workers/raft/dial-list.ts';
import type { GossipNode } from './gossip-node.ts';
import { type GossipPlan, simulateGossip } from './gossip-sim.ts';
import { CALM } from './gossip-world.ts';

const CLUSTER = 'broker';
const CLUSTER_ID = 'c1';
const NODES = 5;
/** What the log says. Nothing but the log changes it, and there is none in this test. */
const MEMBERS: readonly Member[] = Array.from({ length: NODES }, (_, i) => ({
  node: `n${i}`,
  instance: `i${i}`,
  raft: `10.0.0.${i}:12000`,
  grpc: `10.0.0.${i}:8081`,
  protocol: PROTOCOL_VERSION,
}));

/** The tags of a broker; those of a packet that was forged are somebody else's. */
function tagsOf({ node, meta, address }: GossipState): Record<string, string> {
  const number = meta.length === 1 && meta[0] !== 1 ? (meta[0] as number) % 7 : Number(node.slice(1));
  return {
    [TAGS.role]: ROLE,
    [TAGS.cluster]: number === 6 ? 'another' : CLUSTER,
    [TAGS.clusterId]: number === 5 ? 'c2' : CLUSTER_ID,
    [TAGS.instance]: `i${number}`,
    [TAGS.raft]: `${address.host}:12000`,
  };
}

function viewOf(node: GossipNode): readonly GossipMember[] {
  return node.members().map((member) => ({
    node: member.node,
    status: member.state === 'dead' ? 'failed' : member.state,
    address: member.address,
    tags: tagsOf(member),
    protocol: [2, 5, 4],
    isSelf: member.node === node.name,
  }));
}

/** What production makes of a view, and what of it reaches Raft. */
class Watch {
  views = 0;
  failedSeen = 0;
  strangersSeen = 0;
  fewestBrokers = NODES;

  look(nodes: readonly GossipNode[]): void {
    for (const node of nodes.filter(({ isUp }) => isUp)) {
      const view = viewOf(node);
      this.views += 1;
      this.failedSeen += view.filter(({ status }) => status === 'failed').length;
      this.strangersSeen += view.filter((member) => !MEMBERS.some((known) => known.node === member.node)).length;
      this.fewestBrokers = Math.min(this.fewestBrokers, brokersIn(view, CLUSTER));
      const heard = raftAddressesIn(view, CLUSTER, CLUSTER_ID);
      const dialed = dialList(MEMBERS, [], new Map(heard.map((address) => [address.node, address])), node.name);
      assert.deepEqual(
        dialed.map((peer) => [peer.node, peer.instance]),
        MEMBERS.filter((member) => member.node !== node.name).map((member) => [member.node, member.instance]),
      );
    }
  }
}

const STORMS: readonly (readonly [name: string, plan: Partial<GossipPlan>, seeds: number])[] = [
  ['1,000 flaps', { faults: ['flap', 'udp'], foe: null, faultSteps: 400 }, 15],
  ['10^5 forged packets', { faults: ['stop'], foe: 'forge', packetsAStep: 200, faultSteps: 100 }, 5],
  ['10^5 replayed packets', { faults: ['crash', 'move'], foe: 'replay', packetsAStep: 200, faultSteps: 100 }, 5],
];

for (const [name, plan, seeds] of STORMS) {
  test(`[G1] [G6] [G8] ${name}: of what gossip says only where a member is reached gets to Raft, never who is one`, (t) => {
    const watch = new Watch();
    let [flaps, foes] = [0, 0];
    for (let seed = 1; seed <= seeds; seed += 1) {
      const weather = { ...CALM, lossPercent: [0, 5, 20][seed % 3] as number };
      const result = simulateGossip(seed, { ...plan, nodes: NODES, weather, onStep: (nodes) => watch.look(nodes) });
      flaps += result.flaps;
      foes += result.foes;
    }
    t.diagnostic(JSON.stringify({ ...watch, flaps, foes }));
    assert.ok(plan.foe === null ? flaps >= 1_000 : foes >= 100_000, `${flaps} flaps, ${foes} packets`);
    assert.ok(watch.failedSeen > 0 && watch.fewestBrokers < NODES, 'views have to flap');
    assert.ok(plan.foe !== 'forge' || watch.strangersSeen > 0);
  });
}
