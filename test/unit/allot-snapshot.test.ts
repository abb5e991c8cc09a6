import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AllotMachine } from '../../src/allot/allot-machine.ts';
import type { AllotmentInfo } from '../../src/allot/queries.ts';
import { AssertionError } from '../../src/base/assert.ts';
import { Prng } from '../../src/base/prng.ts';
import { slotOfHash, subjectHash } from '../../src/base/subject.ts';
import { sliceOf } from '../../src/storage/postgres/slices.ts';
import { type Command, drain, hashOf, LIMITS, Rig, Transcript, text } from './allot-rig.ts';

/** A random run over few subjects and producers, so that they meet. */
function randomRun(prng: Prng, head: (subject: string) => number): Command[] {
  return Array.from({ length: 1 + prng.nextBelow(8) }, (): Command => {
    const subject = `s${prng.nextBelow(300)}`;
    const base = 1 + prng.nextBelow(head(subject) + 1);
    switch (prng.nextBelow(8)) {
      case 0:
        return { do: 'stored', subject, base };
      case 1:
        return { do: 'revoke', subject, base };
      case 2:
        return { do: 'void', subject, base };
      case 3:
        return { do: 'trim', subject, first: base };
      case 4:
      case 5: {
        const producer = `p${prng.nextBelow(200)}`;
        return {
          do: 'open',
          subject,
          parts: [{ count: 1 + prng.nextBelow(3), producer, sequence: 1 + prng.nextBelow(4) }],
        };
      }
      default:
        return { do: 'open', subject, count: 1 + prng.nextBelow(5), hasExpiry: prng.chance(1, 2) };
    }
  });
}

function step(rig: Rig, prng: Prng): void {
  rig.time += prng.nextBelow(20) === 0 ? 6 * 3_600_000 : prng.nextBelow(10);
  rig.run(...randomRun(prng, (subject) => rig.state(subject)?.head ?? 0));
}

test('[R26] [R28] a snapshot restores to an equal machine that goes on in the same way, at 20 random points', () => {
  const prng = new Prng(7);
  const rig = Rig.started();
  for (let round = 0; round < 20; round++) {
    for (let i = 0; i < 60; i++) step(rig, prng);
    const other = AllotMachine.restore(rig.snapshot(256 + prng.nextBelow(5_000)), LIMITS);
    assert.equal(other.hash(), rig.machine.hash());
    assert.equal(other.stateHash(), rig.machine.stateHash());
    assert.deepEqual({ ...other.counts(), bytes: 0 }, { ...rig.machine.counts(), bytes: 0 });
    if (round % 2 === 0) rig.machine = other;
  }
});

test('a snapshot holds the state of the moment it began, whatever is applied while its chunks are taken', () => {
  for (let seed = 1; seed <= 12; seed++) {
    const prng = new Prng(seed);
    const rig = Rig.started();
    for (let i = 0; i < 200; i++) step(rig, prng);
    const expected = drain(rig.machine, 1 << 20);
    const writer = rig.machine.beginSnapshot();
    assert.equal(writer.index, rig.index);
    const chunks: Uint8Array[] = [];
    for (let chunk = writer.nextChunk(300); chunk !== null; chunk = writer.nextChunk(300)) {
      chunks.push(chunk);
      for (let i = prng.nextBelow(4); i > 0; i--) step(rig, prng);
    }
    assert.ok(chunks.length > 20);
    const restored = AllotMachine.restore(chunks, LIMITS);
    assert.deepEqual(Buffer.concat(drain(restored, 1 << 20)), Buffer.concat(expected), `seed ${seed}`);
    assert.notEqual(restored.stateHash(), rig.machine.stateHash());
  }
});

test('[R28] producers of one bucket are written by name, whatever the order they came in or were restored in', () => {
  const names: string[] = [];
  for (let i = 0; names.length < 8; i++) if (slotOfHash(hashOf(`p${i}`)) === 5) names.push(`p${i}`);
  const open = (producer: string): Command => ({
    do: 'open',
    subject: 's',
    parts: [{ count: 1, producer, sequence: 1 }],
  });
  const rig = Rig.started();
  rig.run(...names.toReversed().map(open));
  const once = Buffer.concat(rig.snapshot());
  const found = names.map((name) => once.indexOf(String.fromCharCode(name.length) + name));
  const byName = [...names].sort().map((name) => found[names.indexOf(name)] as number);
  assert.deepEqual(
    byName,
    [...byName].sort((a, b) => a - b),
  );
  rig.restart();
  assert.deepEqual(Buffer.concat(rig.snapshot()), once);
  rig.time += 12 * 3_600_000;
  rig.run({ do: 'open', subject: 's', parts: [{ count: 1, producer: names[3] as string, sequence: 1 }] });
  rig.restart(1);
  rig.time += 12 * 3_600_000;
  for (let i = 0; i < 1_024; i++) rig.run();
  assert.equal(rig.machine.counts().producers, 1);
});

for (const [what, total, oneSlot] of [
  ['20,000 subjects over all slots', 20_000, false],
  ['300 subjects of one slot', 300, true],
] as const) {
  test(`a snapshot is that of its beginning when ${what} change before they are written, and 300 new ones come`, () => {
    const rig = Rig.started({ subjectsMax: 100_000, producersMax: 1, openPerNodeMax: 100_000 });
    const names: string[] = [];
    for (let i = 0; names.length < total + 300; i++) {
      if (!oneSlot || slotOfHash(hashOf(`s${i}`)) === 5) names.push(`s${i}`);
    }
    const openAll = (some: readonly string[]) => rig.run(...some.map((subject) => ({ do: 'open', subject }) as const));
    openAll(names.slice(0, total));
    const expected = drain(rig.machine, 1 << 20);
    const writer = rig.machine.beginSnapshot();
    openAll(names.slice(total));
    const chunks = [writer.nextChunk(1_000) as Uint8Array];
    openAll(names.toReversed());
    for (let chunk = writer.nextChunk(50_000); chunk !== null; chunk = writer.nextChunk(50_000)) chunks.push(chunk);
    const restored = AllotMachine.restore(chunks, rig.limits);
    assert.ok(Buffer.concat(drain(restored, 1 << 20)).equals(Buffer.concat(expected)));
    assert.equal(restored.counts().subjects, total);
  });
}

test('a snapshot that is abandoned leaves nothing behind, and the next one is right', () => {
  const prng = new Prng(3);
  const rig = Rig.started();
  for (let i = 0; i < 100; i++) step(rig, prng);
  for (const chunksTaken of [0, 1, 5, 40]) {
    const writer = rig.machine.beginSnapshot();
    for (let i = 0; i < chunksTaken; i++) writer.nextChunk(200);
    assert.throws(() => rig.machine.beginSnapshot(), AssertionError);
    step(rig, prng);
    writer.abandon();
    assert.equal(writer.nextChunk(200), null);
    step(rig, prng);
    assert.equal(AllotMachine.restore(rig.snapshot(), LIMITS).stateHash(), rig.machine.stateHash());
  }
});

test('equal states give equal bytes: a machine that was restored and one that was not', () => {
  const prng = new Prng(11);
  const rig = Rig.started();
  for (let i = 0; i < 150; i++) step(rig, prng);
  const once = Buffer.concat(rig.snapshot(1_000));
  rig.restart(77);
  assert.deepEqual(Buffer.concat(rig.snapshot(1_000)), once);
});

test('a snapshot with a flipped byte, or a chunk missing, doubled or out of order is refused', () => {
  const rig = Rig.started();
  const prng = new Prng(5);
  for (let i = 0; i < 30; i++) step(rig, prng);
  const chunks = rig.snapshot(500);
  assert.ok(chunks.length > 3);
  const refused = (bad: Uint8Array[]) => assert.throws(() => AllotMachine.restore(bad, LIMITS), AssertionError);
  const second = chunks[1] as Uint8Array;
  for (let at = 0; at < second.length; at++) {
    const flipped = second.slice();
    flipped[at] = (flipped[at] as number) ^ (1 << (at % 8));
    refused([chunks[0] as Uint8Array, flipped, ...chunks.slice(2)]);
  }
  refused([]);
  refused([chunks[0] as Uint8Array, chunks[2] as Uint8Array, second, ...chunks.slice(3)]);
  refused(chunks.slice(0, -1));
  refused(chunks.slice(1));
  refused([chunks[0] as Uint8Array, ...chunks]);
  refused([...chunks, chunks[0] as Uint8Array]);
  refused([...chunks.slice(0, -2), chunks.at(-1) as Uint8Array, chunks.at(-2) as Uint8Array]);
  refused([...chunks.slice(0, -1), second.subarray(0, 10)]);
});

test('a snapshot comes to its end with the smallest limit for a chunk', () => {
  const rig = Rig.started();
  const prng = new Prng(2);
  for (let i = 0; i < 20; i++) step(rig, prng);
  const chunks = rig.snapshot(1);
  assert.ok(chunks.length < 5_000);
  assert.equal(AllotMachine.restore(chunks, LIMITS).stateHash(), rig.machine.stateHash());
});

test('the format of version 2 is frozen: golden bytes; version 1, which had no runs and no limits, is still read', () => {
  const rig = Rig.started();
  rig.run({ do: 'open', subject: 's', count: 3, shard: 1, counter: 2, expiry: 9 });
  rig.run({ do: 'open', subject: 's', parts: [{ count: 2, producer: 'p', sequence: 1, checksum: 0xdeadbeef }] });
  assert.equal(Buffer.concat(rig.snapshot(1 << 20)).toString('hex'), GOLDEN_2);
  const restored = AllotMachine.restore([Buffer.from(GOLDEN_2, 'hex')], LIMITS);
  assert.equal(restored.stateHash(), rig.machine.stateHash());
  const former = AllotMachine.restore([Buffer.from(GOLDEN, 'hex')], LIMITS);
  const subject = Buffer.from('s');
  const handle = former.find(subject, 0, 1, subjectHash(subject, 0, 1));
  assert.deepEqual([former.index, former.head(handle), former.counts().open], [3, 5, 2]);
  assert.deepEqual(former.limits, LIMITS);
});

const GOLDEN_2 =
  '414c533102000000000000000a010000bebea452010300000000000000e803000000000000f7802d8c000000000000000001' +
  '0000000161010000000700000001000000000000000000000000000000e803000000000000e803000000000000e803000000' +
  '000000021a000000000001000000040101730500000000000000000000000000000002000000010300000000000000000001' +
  '000000070000000100000002000000e803000000000000090000006400000001050000000000000000000100000007000000' +
  '0000000000000000e803000000000000000000006400000003e202010000000170e803000000000000010000000000000001' +
  '00000004000000000000001a00000002000000efbeadde04010000000200000001000000';

const GOLDEN =
  '414c53310100000000000000ea0000007f15c638010300000000000000e803000000000000f7802d8c000000000000000001' +
  '000000016101000000070000000100000000000000021a000000000001000000040101730500000000000000000000000000' +
  '000002000000010300000000000000000001000000070000000100000002000000e803000000000000090000006400000001' +
  '0500000000000000000001000000070000000000000000000000e803000000000000000000006400000003e2020100000001' +
  '70e80300000000000001000000000000000100000004000000000000001a00000002000000efbeadde040100000002000000' +
  '01000000';

test('what a database files a batch by is kept with its allotment, open and revoked, through snapshots and restarts of the node', () => {
  const prng = new Prng(31);
  for (let round = 0; round < 40; round++) {
    const rig = Rig.started();
    const expected = new Map<string, string>();
    for (let i = 0; i < 30; i++) {
      rig.time += prng.nextBelow(100_000_000);
      const subject = `s${prng.nextBelow(8)}`;
      const expiresMax = prng.chance(1, 3) ? 0 : 1 + prng.nextBelow(2 ** 31 - 1);
      const hasExpiry = expiresMax > 0 || prng.chance(1, 2);
      const before = rig.state(subject);
      const count = 1 + prng.nextBelow(3);
      const parts = [{ count, producer: 'p', sequence: i + 1 }];
      rig.run({ do: 'open', subject, expiresMax, hasExpiry, ...(prng.chance(1, 2) ? { count } : { parts }) });
      const base = (before?.head ?? 0) + 1;
      if (rig.state(subject)?.head !== base + count - 1) continue;
      assert.equal(rig.state(subject)?.everExpires, before?.everExpires === true || hasExpiry);
      expected.set(`${subject} ${base}+${count}`, `${rig.time} ${expiresMax} ${sliceOf(rig.time, expiresMax)}`);
      // Stored ones merge with their neighbours: those without a verdict must not.
      const [some] = [...expected.keys()].slice(prng.nextBelow(expected.size));
      const [name, ids] = (some as string).split(' ') as [string, string];
      const at = Number.parseInt(ids, 10);
      const step = prng.nextBelow(4);
      if (step === 0) rig.run({ do: 'revoke', subject: name, base: at });
      else if (step === 1 && rig.verdict(name, at) === 'OPEN') {
        rig.run({ do: 'stored', subject: name, base: at });
        expected.delete(some as string);
      }
      if (prng.chance(1, 6)) rig.restart(1 + prng.nextBelow(500));
      if (prng.chance(1, 20))
        rig.runAs({ node: 'a', incarnation: 2 + i }, { do: 'node-started', keepOpen: prng.chance(1, 2) });
      rig.run({ do: 'node-started', keepOpen: true });
      const found = new Map<string, string>();
      const note = (each: AllotmentInfo): undefined => {
        const key = `${Buffer.from(each.subject)} ${each.base}+${each.count}`;
        found.set(key, `${each.openedAt} ${each.expiresMax} ${sliceOf(each.openedAt, each.expiresMax)}`);
      };
      rig.machine.openAllotmentsOf(text('a'), note);
      rig.machine.revokedAllotmentsOf(text('a'), note);
      assert.deepEqual([...found].sort(), [...expected].sort());
    }
  }
});

test('[R28] two machines fed the same log agree at every index, also when one of them goes through snapshots', () => {
  const prng = new Prng(23);
  const rig = Rig.started();
  const twin = Rig.started();
  for (let i = 0; i < 400; i++) {
    const run = randomRun(prng, (subject) => rig.state(subject)?.head ?? 0);
    rig.time += prng.nextBelow(3_600_000);
    twin.time = rig.time;
    assert.deepEqual(twin.run(...run), rig.run(...run));
    assert.equal(twin.machine.hash(), rig.machine.hash());
    if (prng.nextBelow(40) === 0) twin.restart(1 + prng.nextBelow(2_000));
  }
  assert.equal(twin.machine.stateHash(), rig.machine.stateHash());
});

test('[R28] the chain of hashes differs once an entry, its time or an answer differs', () => {
  const hashes = new Set<number>();
  for (const change of ['none', 'time', 'count', 'limits']) {
    const rig = new Rig(change === 'limits' ? { ...LIMITS, subjectsMax: 0 } : LIMITS);
    if (change === 'time') rig.time += 1;
    rig.run({ do: 'node-started', keepOpen: true });
    rig.run({ do: 'open', subject: 's', count: change === 'count' ? 2 : 1 });
    hashes.add(rig.machine.hash());
  }
  assert.equal(hashes.size, 4);
});

test('a machine is not changed by looking at it', () => {
  const rig = Rig.started();
  rig.run({ do: 'open', subject: 's' });
  const before = rig.machine.stateHash();
  assert.equal(rig.verdict('nobody', 1), 'no subject');
  rig.machine.openAllotmentsOf(text('nobody'), () => undefined);
  assert.equal(rig.machine.stateHash(), before);
  assert.ok(new Transcript().take().length === 0);
});

test('a machine that was restored from one reused Buffer keeps nothing of it', () => {
  const prng = new Prng(77);
  const rig = Rig.started();
  for (let i = 0; i < 60; i++) step(rig, prng);
  const chunks = rig.snapshot(64);
  const memory = Buffer.alloc(Math.max(...chunks.map(({ length }) => length)));
  function* reused(): Generator<Uint8Array> {
    for (const chunk of chunks) {
      memory.set(chunk);
      yield memory.subarray(0, chunk.length);
      memory.fill(0xee);
    }
  }
  const restored = AllotMachine.restore(reused(), LIMITS);
  assert.equal(restored.stateHash(), rig.machine.stateHash());
});
