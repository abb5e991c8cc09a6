/** Attacks on a real broker beside a client that means well; `npm run faults -- abuse` has all of them, longer, and judges the client's times. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { GROWTH_BYTES_MAX, LINES_MAX } from './abuse-campaign.ts';
import { AbuseRig } from './abuse-rig.ts';
import { ATTACKS } from './attacks/all.ts';

const ATTACK_MS = 1_200;
const RESTORED_MS_MAX = 30_000;
/** So long has a call of the client: what is refused or later than that is the broker's doing, however busy the machine is. */
const PATIENCE_MS = 20_000;
const GOODPUT_MIN = 0.9;
const FLAGS = ['--limits-connections', '300', '--limits-empty-bytes', '64KiB', '--limits-in-flight-bytes', '8MiB'];

/** By name: what has to have been ended for it, and so named in the log; null: it is bounded without. */
const CASES: readonly (readonly [string, string | null])[] = [
  ['slow-hoard', null],
  ['admin-slow-head', null],
  ['rapid-reset', 'resets'],
  ['ping-flood', 'empty-frames'],
  ['made-you-reset-window', 'protocol'],
];

describe('[F1, F5, F6] foes beside a good client', () => {
  let rig: AbuseRig;
  before(async () => {
    rig = await AbuseRig.start(FLAGS, 1, PATIENCE_MS);
    await rig.measure(ATTACK_MS);
  });
  after(() => rig[Symbol.asyncDispose]());

  for (const [name, reason] of CASES) {
    it(`${name}: the client is served, memory is bounded${reason === null ? '' : `, the foe is cut off (${reason}) and named`}, nothing stays behind`, {
      timeout: 240_000,
    }, async (t) => {
      const attack = ATTACKS.find((one) => one.name === name);
      assert.ok(attack !== undefined);
      const cut = async (): Promise<number> =>
        reason === null ? 0 : await rig.metric('broker_connections_cut_total', `reason="${reason}"`);
      const [cutBefore, linesBefore] = [await cut(), rig.lines.length];
      const isEnough = async (): Promise<boolean> => reason === null || (await cut()) > cutBefore;
      const { seen, before: base, peak, tally } = await rig.attack(attack, ATTACK_MS, { isEnough });
      t.diagnostic(JSON.stringify({ seen, base, peak, tally }));
      assert.ok(Object.keys(tally).length > 0, 'the attacker did nothing');
      assert.ok(seen.acked >= seen.calls * GOODPUT_MIN, JSON.stringify(seen));
      assert.ok(peak.rss - base.rss < GROWTH_BYTES_MAX, `${(peak.rss - base.rss) / (1 << 20)} MiB more`);
      await rig.restored(base, RESTORED_MS_MAX);
      const lines = rig.lines.slice(linesBefore);
      assert.ok(lines.length < LINES_MAX, `${lines.length} lines in the log`);
      assert.deepEqual(
        lines.filter((line) => /"level":"(error|fatal)"/.test(line)),
        [],
      );
      if (reason !== null) {
        assert.ok(
          rig.lines.some((line) => line.includes(`"reason":"${reason}"`) && /"peer":"127\.0\.0\.1:\d+"/.test(line)),
        );
      }
    });
  }

  it('at the end: everything acknowledged is there, once and in order, and the subscription saw all of it', {
    timeout: 240_000,
  }, async () => {
    assert.deepEqual(await rig.end(), []);
  });
});
