/** A shard whose subject other nodes publish to as well, under random interleavings of what the log allots, closes and revokes. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { AllotVerdict } from '../../src/allot/verdicts.ts';
import { Start } from '../../src/workers/link.ts';
import { OWN, PeersRig } from './peers-rig.ts';

const SEEDS = 150;
const STEPS = 250;

interface Foreign {
  readonly node: string;
  readonly base: number;
  readonly count: number;
  isWritten: boolean;
}

/** Mulberry32. */
function random(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
  };
}

/** Everything of other nodes that is open ends, and what was asked for is done. */
async function finish(rig: PeersRig, open: Foreign[]): Promise<void> {
  const own = rig.machine.nodeNumber(Buffer.from(OWN));
  for (const { node, base, count } of open.splice(0)) {
    if (rig.verdictOf(base) === AllotVerdict.OPEN) {
      rig.storeForeign(base, count);
      rig.closeForeign(node, base);
    }
  }
  for (let quiet = 0; quiet < 4; ) {
    let done = rig.answerQueries();
    while (rig.applyOwn()) done += 1;
    while (rig.writeOwn()) done += 1;
    // The leader asks for marks until there are none missing.
    for (let id = rig.settled + 1; id <= rig.head; id++) {
      const found = rig.machine.allotmentOf(rig.subject, id);
      if (found?.verdict === AllotVerdict.REVOKED && found.node !== own) {
        rig.mark(found.base, found.count);
      }
    }
    rig.progress();
    await rig.settle();
    rig.agent.sweep(performance.now());
    quiet = done === 0 ? quiet + 1 : 0;
  }
}

async function run(seed: number): Promise<void> {
  const below = random(seed);
  const rig = new PeersRig(below(2) === 0 ? 0 : 1 << 16, 1 + below(3));
  const open: Foreign[] = [];
  let sequence = 0;
  let subscriptions = 0;
  let calls = 0;
  const mustBeFetched: number[] = [];
  const starts = [Start.NEW, Start.EARLIEST, Start.ID];
  for (let step = 0; step < STEPS; step++) {
    rig.time += below(3);
    const found = open[below(Math.max(1, open.length))];
    switch (below(14)) {
      case 0:
        if (sequence < 900) rig.add(++sequence, 1 + below(3));
        break;
      case 1:
        rig.add(++sequence);
        break;
      case 2: {
        const count = 1 + below(3);
        const node = below(2) === 0 ? 'b' : 'c';
        open.push({ node, count, base: rig.openForeign(node, count), isWritten: false });
        break;
      }
      case 3:
        if (found === undefined) break;
        rig.storeForeign(found.base, found.count);
        found.isWritten = true;
        break;
      case 4:
      case 5:
        if (found === undefined || !found.isWritten) break;
        rig.closeForeign(found.node, found.base);
        open.splice(open.indexOf(found), 1);
        break;
      case 6:
        if (found === undefined || below(4) > 0) break;
        rig.revoke(found.base);
        if (below(2) === 0) {
          rig.storeForeign(found.base, found.count, true);
          rig.closeForeign(found.node, found.base, true);
        } else {
          rig.mark(found.base, found.count);
          if (below(3) === 0) rig.mark(found.base, found.count);
        }
        open.splice(open.indexOf(found), 1);
        break;
      case 7: {
        // Of this node, in whatever state it is.
        const id = rig.settled + 1 + below(4);
        const mine = id <= rig.head ? rig.machine.allotmentOf(rig.subject, id) : null;
        if (mine !== null && mine.node === rig.machine.nodeNumber(Buffer.from(OWN)) && below(3) === 0)
          rig.revoke(mine.base);
        break;
      }
      case 8:
      case 9:
        rig.applyOwn();
        break;
      case 10:
        rig.writeOwn(below(Math.max(1, rig.writing)));
        break;
      case 11:
        rig.answerQueries();
        rig.progress();
        break;
      case 12:
        if (subscriptions < 6) rig.subscribe(++subscriptions, starts[below(3)] as number, 1 + below(rig.head + 2));
        else if (below(4) === 0) {
          rig.unsubscribe(subscriptions - 5);
          rig.readers.delete(subscriptions - 5);
        }
        break;
      default: {
        if (rig.head === 0) break;
        const id = 1 + below(rig.head);
        rig.fetch(id, ++calls);
        const isThere = rig.read(id, id).items[0]?.kind === 'data';
        const verdict = rig.verdictOf(id);
        const isClosed = verdict === AllotVerdict.STORED || verdict === AllotVerdict.SETTLED;
        if (isThere && isClosed) mustBeFetched.push(calls);
      }
    }
    if (below(2) === 0) rig.work();
    if (below(2) === 0) await new Promise((resolve) => setImmediate(resolve));
  }
  await finish(rig, open);
  assert.equal(rig.settled, rig.head, 'something is left open');
  const ids: number[] = [];
  for (const { base, count, kind } of rig.stored.values()) {
    for (let id = base; kind === 'data' && id < base + count; id++) ids.push(id);
  }
  ids.sort((a, b) => a - b);
  for (const [subscription, reader] of rig.readers) {
    assert(reader.isStarted && reader.ended === null, `subscription ${subscription} has ended: ${reader.ended}`);
    const first = reader.ids[0] ?? rig.head + 1;
    assert.deepEqual(
      reader.ids,
      ids.filter((id) => id >= first),
      `subscription ${subscription}`,
    );
    assert.equal(reader.next, Math.max(rig.head + 1, reader.next), `subscription ${subscription} stands back`);
  }
  for (let sent = 1; sent <= sequence; sent++) {
    const answer = rig.answers.get(sent);
    assert(answer !== undefined, `batch ${sent} has no answer`);
    if (typeof answer === 'number') assert(ids.includes(answer), `id ${answer} was acknowledged`);
    else assert(['STORE_UNAVAILABLE', 'PREDECESSOR_FAILED'].includes(answer), answer);
  }
  for (const call of mustBeFetched) assert.equal(rig.fetched.get(call), 'message');
  assert.equal(rig.fetched.size, calls, 'a fetch hangs');
  assert.deepEqual(rig.damaged, []);
  assert(rig.publish.idle);
}

describe('a subject of several nodes', () => {
  it(`[S11, S12, P1] is delivered once, in order and whole, and nothing acknowledged is void: ${SEEDS} interleavings`, async () => {
    for (let seed = 1; seed <= SEEDS; seed++) {
      try {
        await run(seed);
      } catch (error) {
        throw new Error(`seed ${seed}`, { cause: error });
      }
    }
  });
});
