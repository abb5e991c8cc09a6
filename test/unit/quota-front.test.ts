/** What stands around the quotas: windows, delays that are told, and which tenants /metrics shows. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { BrokerError } from '../../src/base/errors.ts';
import { QuotaErrors, QuotaStatuses, roundedDelayMs } from '../../src/grpc/quota-status.ts';
import { BaseDelay } from '../../src/publish/base-delay.ts';
import { SendWindow } from '../../src/publish/send-window.ts';
import type { StreamMeter } from '../../src/quota/stream-meter.ts';
import { TenantTable } from '../../src/quota/tenant-table.ts';
import { watchNodes } from '../../src/workers/admin/live-nodes.ts';
import { TenantsService } from '../../src/workers/admin/tenants-service.ts';
import { Quotas } from '../../src/workers/front/quotas.ts';
import { FIGURES, ShownTenants } from '../../src/workers/metrics/shown-tenants.ts';
import { until } from '../support/until.ts';

describe('send window', () => {
  const LIMITS = { bytesMin: 1_000, bytesStart: 100_000, bytesMax: 1_000_000, targetMs: 5 };

  it('a quota holds back what is told, never what was told, and not what ends a stream', () => {
    const window = new SendWindow(LIMITS, new BaseDelay());
    window.limitTo(500, 10);
    assert.equal(window.tell(), true);
    assert.deepEqual([window.bytesTold, window.messagesTold], [500, 10]);
    assert.equal(window.tell(), false);
    window.received(400, 4);
    assert.equal(window.isTold(101, 1), false);
    assert.equal(window.isTold(100, 6), true);
    assert.equal(window.isTold(100, 7), false);
    assert.ok(window.allows(50_000, 100), 'the stream goes on');
    window.limitTo(100, 2);
    assert.equal(window.tell(), false, 'a smaller window moves no limit back');
    assert.deepEqual([window.bytesTold, window.messagesTold], [500, 10]);
    window.returned(400, 4);
    assert.equal(window.isTold(5_000, 500), true, 'one batch always may, with nothing in flight');
    assert.equal(window.tell(), false);
    window.limitTo(Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY);
    assert.equal(window.tell(), true);
    assert.deepEqual([window.bytesTold, window.messagesTold], [window.bytesLimit, window.messagesLimit]);
  });

  it('without a quota what is told is the limit', () => {
    const window = new SendWindow(LIMITS, new BaseDelay());
    window.tell();
    assert.deepEqual([window.bytesTold, window.messagesTold], [window.bytesLimit, window.messagesLimit]);
  });
});

describe('delays', () => {
  it('are rounded up, by little, to few different ones', () => {
    fc.assert(
      fc.property(fc.double({ min: 0, max: 3_600_000, noNaN: true }), (delay) => {
        const rounded = roundedDelayMs(delay);
        assert.ok(rounded >= delay && rounded <= Math.max(delay + 1, delay * 1.1 + 1e-6), `${delay}: ${rounded}`);
      }),
    );
    const different = new Set<number>();
    for (let delay = 0; delay < 3_600_000; delay += 0.5 + delay / 1_000) different.add(roundedDelayMs(delay));
    assert.ok(different.size < 500, `${different.size}`);
    assert.deepEqual([0, 0.2, 1e12].map(roundedDelayMs), [1, 1, 3_600_000]);
  });

  it('a refusal with the same delay is made once', () => {
    const [statuses, errors] = [new QuotaStatuses(), new QuotaErrors()];
    assert.equal(statuses.of(101), statuses.of(109));
    assert.notEqual(statuses.of(101), statuses.of(151));
    assert.equal(errors.of(7.5), errors.of(8));
  });
});

describe('tenants in metrics', () => {
  function rig(max: number, tenantsMax = 50) {
    const table = new TenantTable({ tenantsMax, burstMs: 1_000 });
    table.apply([{ tenant: '', prefix: '', messagesPerSecond: 0, bytesPerSecond: 0 }], 0);
    return { table, shown: new ShownTenants(table, max) };
  }

  it('are few, and no counter of one that is shown or of the others ever falls', () => {
    const step = fc.record({
      tenant: fc.integer({ min: 0, max: 80 }),
      messages: fc.integer({ min: 0, max: 1_000 }),
      afterMs: fc.constantFrom(0, 100, 20_000),
      look: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 200 }), fc.boolean(), (steps, forgets) => {
        const { table, shown } = rig(3, forgets ? 10 : 100);
        let now = 0;
        let published = 0;
        let before = new Map<string, number>();
        let [grown, publishedThen] = [0, 0];
        for (const { tenant, messages, afterMs, look } of steps) {
          now += afterMs;
          published += messages;
          table.of(`t${tenant}`, now).usage.count(messages, messages * 10);
          if (!look) continue;
          const rows = shown.look();
          assert.ok(rows.length <= 4 && rows.at(-1)?.name === 'other');
          const after = new Map(rows.map(({ name, values }) => [name, values.messages]));
          assert.ok(FIGURES.every((figure) => rows.every(({ values }) => values[figure] >= 0)));
          assert.ok((after.get('other') ?? 0) >= (before.get('other') ?? 0));
          for (const [name, value] of after) grown += value - (before.get(name) ?? 0);
          publishedThen = published;
          before = after;
        }
        const all = [...table.all()].reduce((sum, { usage }) => sum + usage.messages, 0);
        assert.equal(all, published);
        // One that was forgotten and comes back begins anew, as after a restart.
        if (!forgets) assert.equal(grown, publishedThen, 'what the series have grown by is what was published');
      }),
    );
  });

  it('what a tenant did between the last look and the loss of its place counts for the others', () => {
    const { table, shown } = rig(2);
    const use = (name: string, messages: number): void => table.of(name, 0).usage.count(messages, 0);
    use('a', 1);
    shown.look();
    use('a', 1);
    use('b', 3);
    use('c', 3);
    const rows = shown.look().map(({ name, values }) => [name, values.messages]);
    assert.deepEqual(rows, [
      ['b', 3],
      ['c', 3],
      ['other', 1],
    ]);
  });

  it('a place goes to whoever is much busier', () => {
    const { table, shown } = rig(2);
    const use = (name: string, messages: number): void => table.of(name, 0).usage.count(messages, 0);
    use('a', 10);
    use('b', 20);
    use('c', 5);
    const names = (): string[] => shown.look().map(({ name }) => name);
    assert.deepEqual(names().sort(), ['a', 'b', 'other']);
    use('a', 10);
    use('b', 10);
    use('c', 15);
    assert.deepEqual(names().sort(), ['a', 'b', 'other']);
    use('b', 10);
    use('c', 5);
    assert.deepEqual(names().sort(), ['b', 'c', 'other']);
  });
});

describe('turns', () => {
  const quotasOf = (messagesPerSecond: number, burstMs: number): Quotas =>
    new Quotas({
      rules: [{ tenant: 'acme', prefix: '', messagesPerSecond, bytesPerSecond: 0 }],
      tenantsMax: 10,
      burstMs,
    });
  const SUBJECT = Buffer.from('orders');
  const judge = (meter: StreamMeter, messages: number): string =>
    meter.judge(SUBJECT, 0, SUBJECT.length, messages, 100, true, performance.now());

  it('one behind a stream that has ended comes when there is enough for it', async () => {
    // In a minute there is enough for the first, at once for the second.
    const quotas = quotasOf(1_000, 60_000);
    let turns = 0;
    const front = quotas.openStream('acme', () => assert.fail('it has ended'));
    const behind = quotas.openStream('acme', () => (turns += 1));
    const { limiter } = quotas.table.of('acme', performance.now());
    limiter.take(limiter.calls, 60_000, 0);
    assert.deepEqual([judge(front, 60_000), judge(behind, 1)], ['wait', 'wait']);
    front.close();
    await until(
      () => turns === 1,
      () => 'its turn does not come',
      10_000,
    );
    behind.close();
    quotas.stop();
  });

  it('that are further away than a timer can be set cost nothing until they come', async (t) => {
    const timeouts = t.mock.method(globalThis, 'setTimeout');
    const quotas = quotasOf(0.001, 1_000);
    const meter = quotas.openStream('acme', () => assert.fail('it is due in months'));
    assert.equal(judge(meter, 10_000), 'taken');
    meter.passed();
    assert.equal(judge(meter, 1), 'wait');
    const delays = timeouts.mock.calls.map(({ arguments: [, delay] }) => Number(delay));
    assert.ok(
      delays.every((delay) => delay < 2 ** 31),
      `${delays}`,
    );
    meter.close();
    quotas.stop();
  });
});

describe('nodes', () => {
  it('quotas are divided between the nodes that the leader hears; while none says, the number stays', async () => {
    const quotas = new Quotas({
      rules: [{ tenant: 'acme', prefix: '', messagesPerSecond: 90, bytesPerSecond: 0 }],
      tenantsMax: 10,
      burstMs: 1_000,
    });
    const service = new TenantsService(quotas);
    quotas.table.of('acme', performance.now());
    const share = (): [number, number | undefined] => {
      const { nodes, tenants } = service.listTenants(10, new Uint8Array(0));
      return [nodes, tenants.find(({ tenant }) => tenant === 'acme')?.messagesPerSecondMax];
    };
    assert.deepEqual(share(), [1, 90]);
    const answers = [
      [true, true, true],
      [false, false, false],
      [true, true, false],
    ];
    for (const [index, expected] of (
      [
        [3, 30],
        [3, 30],
        [2, 45],
      ] as const
    ).entries()) {
      let asked = 0;
      const members = async () => {
        asked += 1;
        return { members: (answers[index] ?? []).map((isActive) => ({ isActive })) } as never;
      };
      const timer = watchNodes({ members }, quotas);
      await until(() => asked > 0, share);
      await new Promise((resolve) => setImmediate(resolve));
      clearInterval(timer);
      assert.deepEqual(share(), expected);
    }
    const silent = Object.assign(new Error('14 UNAVAILABLE'), { code: 14, metadata: {} });
    for (const error of [new BrokerError('SHUTTING_DOWN'), silent]) {
      const timer = watchNodes({ members: () => Promise.reject(error) }, quotas);
      await new Promise((resolve) => setImmediate(resolve));
      clearInterval(timer);
      assert.deepEqual(share(), [2, 45]);
    }
    quotas.stop();
  });

  it('where no leader says for long whom it hears, as one with an access file says to nobody without a certificate, all members have a part', async (t) => {
    t.mock.timers.enable({ apis: ['setInterval'] });
    const quotas = new Quotas({
      rules: [{ tenant: 'acme', prefix: '', messagesPerSecond: 90, bytesPerSecond: 0 }],
      tenantsMax: 10,
      burstMs: 1_000,
    });
    const answers = [
      [false, false, false],
      [true, true, false],
      ...Array.from({ length: 6 }, () => [false, false, false]),
    ];
    const shares: number[] = [];
    const members = async () => ({ members: answers.shift()?.map((isActive) => ({ isActive })) }) as never;
    const timer = watchNodes({ members }, quotas);
    for (let look = 0; look < 7; look++) {
      await new Promise((resolve) => setImmediate(resolve));
      shares.push(90 / quotas.table.nodes);
      t.mock.timers.tick(2_000);
    }
    clearInterval(timer);
    assert.deepEqual(shares, [30, 45, 45, 45, 45, 45, 30]);
    quotas.stop();
  });

  it('a defect met while the nodes are counted ends the process', () => {
    const module = new URL('../../src/workers/admin/live-nodes.ts', import.meta.url).href;
    const code = `import { watchNodes } from '${module}';
      const members = () => Promise.reject(new TypeError('a defect'));
      watchNodes({ members }, { isOn: true, setNodes: () => undefined });
      process.on('uncaughtException', ({ message }) => process.stdout.write('died of ' + message));`;
    const ended = spawnSync(process.execPath, ['--input-type=module', '-e', code], { encoding: 'utf8' });
    assert.equal(ended.stdout, 'died of a defect');
  });
});
