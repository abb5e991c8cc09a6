/** Pages of the console in a real Chromium, with figures that no single node on this machine has: a cluster in trouble, many clients, hostile names. */
import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { after, it, type TestContext } from 'node:test';
import type { Browser } from 'playwright-core';
import { WebConsole } from '../../src/console/console.ts';
import type { ConsoleOptions, ConsoleSources } from '../../src/console/ports.ts';
import {
  AdviseShardsResponse,
  ListShardsResponse,
  ListSubjectsResponse,
  Shard,
  StatusResponse,
  SubjectInfoResponse,
} from '../../src/grpc/gen/broker/v1/admin.ts';
import { Member, MembersResponse, Seen } from '../../src/grpc/gen/broker/v1/cluster.ts';
import {
  ClientConnection,
  ListTenantsResponse,
  OpenSubscription,
  Setting,
  TenantUsage,
  TopSubject,
} from '../../src/grpc/gen/broker/v1/inspect.ts';
import { AdminServer } from '../../src/telemetry/admin-http.ts';
import { openPage, startChromium } from '../servers/chromium.ts';
import { isUsable, requireTool } from '../support/tools.ts';
import { accessibilityFaults } from './console-rig.ts';

const EVIL = '<img src=x onerror=alert(1)>\u202e"\'';
const SHOWN = '<img src=x onerror=alert(1)>U+202E"\'';
const PICTURES = process.env.BROKER_TEST_PICTURES ?? '';

/** A message with these fields, and the others as protobuf has them where nothing is sent. */
function made<T>(type: { decode(bytes: Uint8Array): T }, fields: Partial<T>): T {
  return { ...type.decode(new Uint8Array()), ...fields };
}

const shard = (number: number): Shard =>
  made(Shard, {
    shard: number,
    slots: 256,
    serving: number !== 3,
    utilization: 0.2 * (number + 1),
    messagesPerSecond: 40_000 * (number + 1),
    bytesPerSecond: 4e6,
    queueWaitMs: 0.4,
    storeWriteMs: 1.2,
    groupMessages: 180,
    hotSubjects: [{ tenant: '', subject: EVIL, share: 0.4 }],
  });

const SUBSCRIPTIONS = Array.from({ length: 60 }, (_, at) =>
  made(OpenSubscription, {
    id: at + 1,
    kind: at % 2 === 0 ? 'subscribe' : 'consume',
    subject: at === 0 ? EVIL : `orders.region-${at}`,
    pattern: at === 1 ? EVIL : '',
    peer: at === 2 ? EVIL : `10.0.0.${at}:40123`,
    tenant: at === 3 ? EVIL : 'default',
    sent: 1_000_000 - at * 100,
    settled: 1_000_000,
    lag: at * 100,
    state: ['tail', 'catch-up', 'waiting', 'later'][at % 4] ?? '',
    messages: 123_456,
    bytes: 5e7,
    unsentBytes: at * 4_096,
    openMs: 86_400_000 + at,
  }),
);

/** The parts of a node, made up. */
function sources(): ConsoleSources {
  let published = 0;
  const advice = made(AdviseShardsResponse, { shards: 4, recommended: 6, reason: EVIL, effect: EVIL, cores: 8 });
  return {
    name: EVIL,
    node: {
      status: async () => {
        published += 100_000;
        return made(StatusResponse, {
          nodeId: EVIL,
          role: 'voter',
          leader: EVIL,
          store: 'postgres',
          durability: 'replicated',
          messagesPublished: published,
          warnings: [EVIL, 'new messages are refused: the disk has reached the low-space mark'],
          resize: 'to 6 shards, 100 of 300 slots moved',
        });
      },
      listSubjects: async () => made(ListSubjectsResponse, {}),
      subjectInfo: async () => made(SubjectInfoResponse, {}),
      listShards: async () =>
        made(ListShardsResponse, {
          shards: [0, 1, 2, 3].map(shard),
          shardsMax: 16,
          change: {
            running: true,
            what: EVIL,
            slotsMoved: 100,
            slotsTotal: 300,
            pauseMsMax: 3.2,
            durationMs: 1,
            error: '',
          },
        }),
      adviseShards: async () => advice,
      resizeShards: () => assert.fail('nothing is changed here'),
    },
    members: {
      members: async () =>
        made(MembersResponse, {
          nodeId: 'b2',
          leader: 'b1',
          term: 7,
          tolerates: 1,
          toleratesNow: 0,
          votersWanted: 3,
          warnings: [EVIL],
          members: [
            made(Member, { nodeId: 'b1', role: 'voter', isLeader: true, matchIndex: 900, isActive: true }),
            made(Member, {
              nodeId: 'b2',
              role: 'voter',
              matchIndex: 900,
              isActive: true,
              grpcAddress: 'b2:8081',
            }),
            made(Member, { nodeId: 'b3', role: 'voter', matchIndex: 10, isActive: false }),
          ],
          seen: [made(Seen, { nodeId: EVIL, status: 'failed', isMember: true, difference: EVIL })],
        }),
    },
    messages: { fetch: () => assert.fail('no message is looked at here') },
    delivered: () => published * 2,
    inspect: {
      listSubscriptions: async ({ order }) => ({
        subscriptions: order === 0 ? SUBSCRIPTIONS.toReversed() : SUBSCRIPTIONS,
        total: 12_345,
        lagMax: 5_900,
      }),
      listConnections: async () => ({
        connections: [
          made(ClientConnection, {
            peer: '10.0.0.1:40123',
            agent: EVIL,
            tenant: EVIL,
            calls: 3,
            bytesIn: 2 ** 31,
          }),
        ],
        total: 1,
      }),
      topSubjects: async () => ({
        subjects: [made(TopSubject, { subject: EVIL, messagesPerSecond: 123_456, share: 0.5 })],
      }),
    },
    tenants: {
      listTenants: () =>
        made(ListTenantsResponse, {
          tenants: [
            made(TenantUsage, {
              tenant: EVIL,
              subjectPrefix: EVIL,
              messagesPerSecondMax: 100,
              messagesPerSecond: 90,
            }),
          ],
          nodes: 3,
        }),
    },
    settings: {
      listSettings: () => [
        made(Setting, { key: 'log.level', value: EVIL, origin: 'file', place: EVIL, live: true }),
        made(Setting, { key: 'gossip.key', value: '********', origin: 'environment' }),
      ],
    },
  };
}

let browser: Browser;
if (isUsable('chromium')) browser = await startChromium();
after(() => browser?.close());

async function serve(t: TestContext, options: Partial<ConsoleOptions> = {}): Promise<string> {
  const parts = sources();
  const pages = new WebConsole({
    sources: () => parts,
    access: null,
    mayWrite: false,
    hosts: [],
    onChange: () => assert.fail('nothing is changed here'),
    onDefect: (error) => assert.fail(String(error)),
    now: Date.now,
    ...options,
  });
  const healthy = () => ({ ready: true, reasons: [] });
  const server = new AdminServer({
    metrics: () => Promise.resolve(''),
    metricsContentType: 'text/plain',
    alive: healthy,
    ready: healthy,
    onError: (error) => assert.fail(String(error)),
    pages,
  });
  const port = await server.listen('127.0.0.1', 0);
  t.after(() => server.close());
  return `http://127.0.0.1:${port}`;
}

const PAGES = ['overview', 'nodes', 'shards', 'subscriptions', 'connections', 'tenants', 'settings'] as const;

for (const [size, viewport, colorScheme] of [
  ['desk', { width: 1280, height: 900 }, 'light'],
  ['phone', { width: 360, height: 740 }, 'dark'],
] as const) {
  it(`a node in trouble, with hostile names, is shown on a ${size}, and nothing of it is run`, async (t) => {
    if (!requireTool(t, 'chromium')) return;
    const at = await serve(t);
    const { page, context, errors, strays, dialogs } = await openPage(browser, at, { viewport, colorScheme });
    for (const name of PAGES) {
      await page.goto(`/#/${name}`);
      await page.locator('main').getByText(SHOWN).first().waitFor();
      assert.equal(await page.evaluate('document.querySelectorAll("main img, main script").length'), 0);
      assert.equal(
        await page.evaluate('document.documentElement.textContent.includes("\\u202e")'),
        false,
        `${name} can be turned`,
      );
      assert.deepEqual(await page.evaluate(accessibilityFaults), [], name);
      assert.ok(
        Number(await page.evaluate('document.documentElement.scrollWidth - innerWidth')) <= 0,
        `${name} is too wide`,
      );
      // Two points, so that lines are drawn.
      if (PICTURES !== '' && (name === 'overview' || name === 'shards')) await page.waitForTimeout(5_000);
      if (PICTURES !== '') {
        mkdirSync(PICTURES, { recursive: true });
        await page.screenshot({ path: join(PICTURES, `trouble-${name}-${size}-${colorScheme}.png`), fullPage: true });
      }
    }
    await context.close();
    assert.deepEqual([errors, strays, dialogs], [[], [], []]);
  });
}

it('subscriptions are ordered as they are asked for, and a row of one subject is one row', async (t) => {
  if (!requireTool(t, 'chromium')) return;
  const { page, context, asked } = await openPage(browser, await serve(t));
  await page.goto('/#/subscriptions');
  const rows = page.locator('main tbody tr');
  await page.getByText('60 of 12,345 on this node. Largest lag: 5,900 ids.').waitFor();
  assert.equal(await rows.count(), 60);
  assert.match((await rows.first().textContent()) ?? '', /orders\.region-59/);
  await page.getByLabel('Most first by').selectOption('subject');
  await page.waitForURL(/order=subject/);
  await rows.first().getByText(SHOWN).first().waitFor();
  assert.ok(asked.includes('/api/v1/subscriptions?order=subject'));
  await context.close();
});

it('a node that starts is told as such, and shown when it is there; what it does not tell is not in the menu', async (t) => {
  if (!requireTool(t, 'chromium')) return;
  const parts = { ...sources(), inspect: null };
  let isStarted = false;
  const at = await serve(t, { sources: () => (isStarted ? parts : null) });
  const { page, context } = await openPage(browser, at);
  await page.goto('/');
  await page.getByRole('alert').getByText('the broker is starting or has no Raft quorum').waitFor();
  isStarted = true;
  await page.getByText('postgres').waitFor();
  assert.equal(await page.locator('.problem').isVisible(), false);
  await page.getByRole('link', { name: 'Subscriptions' }).waitFor({ state: 'hidden' });
  assert.equal(await page.getByRole('link', { name: 'Tenants' }).isVisible(), true);
  await page.goto('/#/subscriptions');
  await page.getByRole('alert').getByText('this node does not tell that; upgrade it.').waitFor();
  await context.close();
});
