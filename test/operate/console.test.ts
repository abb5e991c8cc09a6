/** The web console in a real Chromium, on a real broker: every page, at the width of a desk and of a phone. */
import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { after, describe, it, type TestContext } from 'node:test';
import type { Browser, BrowserContextOptions, Page } from 'playwright-core';
import { openPage, startChromium, type Watched } from '../servers/chromium.ts';
import { type BrokerProcess, startBroker } from '../support/broker.ts';
import { BrokerClient } from '../support/client.ts';
import { isUsable, requireTool } from '../support/tools.ts';
import { until } from '../support/until.ts';
import { accessibilityFaults } from './console-rig.ts';

const DESK = { width: 1280, height: 900 };
const PHONE = { width: 360, height: 740 };
/** What stands in every place that a client can fill: markup, script, style, directions, quotes, and what looks like our own. */
const XSS = [
  '<script>alert(1)</script>',
  '<img src=x onerror=alert(1)>',
  '"><svg onload=alert(1)>',
  "' onmouseover='alert(1)",
  'javascript:alert(1)',
  '</pre></title></textarea><iframe srcdoc="<script>alert(1)</script>">',
  '{{constructor.constructor("alert(1)")()}}',
  '<style>*{display:none}</style>',
  '<base href=https://evil.example/><link rel=stylesheet href=//evil.example/x.css>',
  '\u202etxt.exe\u2066\u200b\ufeff',
  '<a href=//evil.example ping=//evil.example>',
  '&lt;b&gt;&#60;',
  ['$', '{alert(1)}`', '\\\\u003cscript'].join(''),
];
/** Folder for pictures of all pages, to be looked at. */
const PICTURES = process.env.BROKER_TEST_PICTURES ?? '';

let broker: BrokerProcess;
let client: BrokerClient;
let browser: Browser;
const origin = (): string => `http://${broker.adminAddress}`;

if (isUsable('chromium')) {
  [broker, browser] = await Promise.all([
    startBroker({ flags: ['--shards', '2', '--console-write'] }),
    startChromium(),
  ]);
  client = new BrokerClient(broker.address);
  for (let i = 1; i <= 45; i += 1) {
    const order = { order: 1_000 + i, total: 12.5, items: [{ sku: 'A-1', count: i }] };
    const headers = [
      { key: 'traceparent', value: Buffer.from('00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01') },
    ];
    await client.publish({ subject: 'orders.created', body: Buffer.from(JSON.stringify(order)), headers });
  }
  await client.incIdx('orders.created');
  await client.publish({
    subject: 'orders.created',
    body: Buffer.from(Array.from({ length: 300 }, (_, at) => at & 255)),
  });
  for (const text of XSS) {
    const headers = [{ key: text, value: Buffer.from(text) }];
    await client.publish({ subject: `evil.${text}`, body: Buffer.from(text), headers });
    await client.publish({ subject: 'evil-bodies', body: Buffer.from(JSON.stringify({ [text]: text })), headers });
  }
}

after(async () => {
  await browser?.close();
  client?.close();
  await broker?.dispose();
});

/** A page of the console; closed with the test, which fails if it did anything that it must not. */
async function open(
  t: TestContext,
  options: BrowserContextOptions = {},
  at = origin(),
  expected?: RegExp,
): Promise<Watched> {
  const watched = await openPage(browser, at, { viewport: DESK, ...options }, expected);
  t.after(async () => {
    await watched.context.close();
    assert.deepEqual([watched.errors, watched.strays, watched.dialogs], [[], [], []]);
  });
  return watched;
}

/** Resolves when the page shows what it asked for. */
async function show(page: Page, hash: string, shown: string): Promise<void> {
  await page.goto(`/${hash}`);
  await page.locator('main').getByText(shown).first().waitFor();
}

const PAGES: readonly (readonly [string, string, string])[] = [
  ['overview', '#/overview', 'embedded,'],
  ['nodes', '#/nodes', 'runs alone: no other node'],
  ['shards', '#/shards', 'cores,'],
  ['subjects', '#/subjects', 'orders.created'],
  ['messages', '#/messages?subject=orders.created', 'Kept from id 1 to 47'],
  ['subscriptions', '#/subscriptions', 'on this node. Largest lag'],
  ['connections', '#/connections', 'on this node, most bytes first'],
  ['tenants', '#/tenants', 'nothing is counted'],
  ['settings', '#/settings', 'grpc.listen'],
  ['message', '#/message?subject=orders.created&id=45', '"order": 1045'],
  ['message-hex', '#/message?subject=orders.created&id=47', '000000  00 01 02'],
  ['message-void', '#/message?subject=orders.created&id=46', 'ID_VOID'],
  ['message-missing', '#/message?subject=orders.created&id=48', 'ID_NOT_FOUND'],
];

for (const colorScheme of ['light', 'dark'] as const) {
  for (const [size, viewport] of Object.entries({ desk: DESK, phone: PHONE })) {
    it(`every page fits a ${size}, is ${colorScheme}, asks nobody else, and can be used without sight`, async (t) => {
      if (!requireTool(t, 'chromium')) return;
      const { page, asked } = await open(t, { viewport, colorScheme });
      for (const [name, hash, shown] of PAGES) {
        await show(page, hash, shown);
        const wider = await page.evaluate('document.documentElement.scrollWidth - innerWidth');
        assert.ok(Number(wider) <= 0, `${name} is ${wider} px too wide`);
        assert.deepEqual(await page.evaluate(accessibilityFaults), [], name);
        if (PICTURES !== '') {
          mkdirSync(PICTURES, { recursive: true });
          await page.screenshot({ path: join(PICTURES, `${name}-${size}-${colorScheme}.png`), fullPage: true });
        }
      }
      // The files once, the page itself and its data as often as a page was opened.
      assert.equal(asked.filter((path) => path.endsWith('.css')).length, 2);
    });
  }
}

it('charts have a point a second, and fit again when the window changes its width', async (t) => {
  if (!requireTool(t, 'chromium')) return;
  const { page } = await open(t);
  await show(page, '#/overview', 'embedded,');
  const canvas = page.locator('.plot canvas').first();
  await page
    .locator('.legend')
    .getByText(/published \d/)
    .waitFor();
  const drawn = `(() => { const c = document.querySelector('.plot canvas');
    return c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some((byte) => byte > 0); })()`;
  assert.equal(await page.evaluate(drawn), true);
  const wide = (await canvas.boundingBox())?.width ?? 0;
  await page.setViewportSize(PHONE);
  await until(
    async () => ((await canvas.boundingBox())?.width ?? wide) < 340,
    () => 'the chart stays wide',
  );
  assert.ok(wide > 340);
  const label = await page.locator('.plot').first().getAttribute('aria-label');
  assert.match(label ?? '', /^Messages a second: published [\d.]+, delivered [\d.]+$/);
});

it('nothing that a client can write is run, styled or followed, wherever it is shown', async (t) => {
  if (!requireTool(t, 'chromium')) return;
  // The last question is one that the node refuses.
  const { page } = await open(t, {}, origin(), /status of 400/);
  const elements = (): Promise<number> =>
    page.evaluate(
      'document.querySelectorAll("main script, main img, main svg, main iframe, main style, main base, main link").length',
    );
  await show(page, '#/subjects?prefix=evil.', 'evil.');
  assert.equal(await page.locator('main tbody tr').count(), XSS.length);
  assert.equal(await elements(), 0);
  const bare = (text: string | null): string =>
    text?.replace(/U\+[0-9A-F]{4,6}/g, (code) => String.fromCodePoint(Number.parseInt(code.slice(2), 16))) ?? '';
  const shownNames = (await page.locator('main tbody th').allTextContents()).map(bare).sort();
  assert.deepEqual(shownNames, XSS.map((text) => `evil.${text}`).sort(), 'every character is shown');
  for (const text of XSS) {
    const subject = encodeURIComponent(`evil.${text}`);
    await show(page, `#/messages?subject=${subject}`, 'Kept from id 1');
    await page.locator('main tbody a').first().click();
    await page.locator('pre.body').waitFor();
    assert.equal(bare(await page.locator('pre.body').textContent()), text);
    await page.getByLabel('Hex', { exact: true }).check();
    assert.match((await page.locator('pre.body').textContent()) ?? '', /^[\x20-\x7e·\n]+$/);
    assert.equal(bare(await page.locator('main tbody th').first().textContent()), text);
    assert.equal(bare(await page.locator('main tbody td').first().textContent()), text);
    assert.equal(await elements(), 0, text);
  }
  for (let id = 1; id <= XSS.length; id += 1) {
    await show(page, `#/message?subject=evil-bodies&id=${id}`, 'Published');
    assert.deepEqual(JSON.parse(bare(await page.locator('pre.body').textContent())), {
      [XSS[id - 1] as string]: XSS[id - 1],
    });
  }
  await page.goto(
    `/#/messages?subject=${encodeURIComponent(XSS[0] as string)}&id=${encodeURIComponent(XSS[1] as string)}`,
  );
  await page.locator('.problem').waitFor();
  assert.equal(await elements(), 0);
});

it('names with characters that are not seen, or turn the direction, show them', async (t) => {
  if (!requireTool(t, 'chromium')) return;
  const { page } = await open(t);
  await show(page, `#/messages?subject=${encodeURIComponent('evil.\u202etxt.exe\u2066\u200b\ufeff')}`, 'Kept from');
  const heading = page.locator('h2').first();
  assert.equal(await heading.textContent(), 'evil.U+202Etxt.exeU+2066U+200BU+FEFF');
  assert.equal(await heading.locator('.unseen').count(), 4);
});

it('everything can be reached and used by keyboard alone', async (t) => {
  if (!requireTool(t, 'chromium')) return;
  const { page } = await open(t);
  await show(page, '#/overview', 'embedded,');
  const focused = (): Promise<string> =>
    page.evaluate('(document.activeElement.textContent || document.activeElement.id).trim()');
  await page.keyboard.press('Tab');
  assert.equal(await focused(), 'Skip to the content');
  const outline = await page.evaluate('getComputedStyle(document.activeElement).outlineStyle');
  assert.equal(outline, 'solid', 'the focus is seen');
  const order: string[] = [];
  for (let i = 0; i < 6; i += 1) {
    await page.keyboard.press('Tab');
    order.push(await focused());
  }
  assert.deepEqual(order, ['?', 'Overview', 'Nodes', 'Shards', 'Subjects', 'Messages']);
  await page.keyboard.press('Enter');
  await page.getByRole('heading', { level: 1, name: 'Messages' }).waitFor();
  assert.equal(await focused(), 'Messages', 'the new page has the focus');
  await page.keyboard.press('/');
  await page.keyboard.type('orders.created');
  await page.keyboard.press('Tab');
  await page.keyboard.type('44');
  await page.keyboard.press('Enter');
  await page.locator('main tbody a').first().waitFor();
  while ((await focused()) !== '45') await page.keyboard.press('Tab');
  await page.keyboard.press('Enter');
  await page.getByText('"order": 1045').waitFor();
  await page.keyboard.press(']');
  await page.getByText('ID_VOID').waitFor();
  await page.keyboard.press('[');
  await page.getByText('"order": 1045').waitFor();
  while (!(await page.evaluate('document.activeElement.matches("input[type=radio]")')))
    await page.keyboard.press('Tab');
  await page.keyboard.press('ArrowRight');
  await page.keyboard.press('ArrowRight');
  await page.locator('pre.body').getByText('000000').waitFor();
  await page.keyboard.press('?');
  await page.getByRole('dialog', { name: 'Keyboard' }).waitFor();
  await page.keyboard.press('Escape');
  await page.keyboard.press('g');
  await page.keyboard.press('s');
  await page.getByRole('heading', { level: 1, name: 'Shards' }).waitFor();
});

it('a row keeps the focus while the figures around it change', async (t) => {
  if (!requireTool(t, 'chromium')) return;
  const { page } = await open(t);
  await show(page, '#/messages?subject=orders.created', 'Kept from id 1 to 47');
  await page.getByRole('link', { name: '45', exact: true }).focus();
  await client.publish({ subject: 'orders.created', body: Buffer.from('one more') });
  await page.getByText('one more').waitFor();
  assert.equal(await page.evaluate('document.activeElement.textContent'), '45');
});

it('the advice is applied with a click where writing is on, and cannot be where it is not', async (t) => {
  if (!requireTool(t, 'chromium')) return;
  const { page } = await open(t);
  await show(page, '#/shards', 'cores,');
  const rows = page.getByRole('table', { name: 'Shards' }).locator('tbody tr');
  await page.getByLabel('Number of shards').fill('3');
  await page.getByRole('button', { name: 'Change', exact: true }).click();
  await page.getByText('The change to 3 shards has begun.').waitFor();
  await until(
    async () => (await rows.count()) === 3,
    () => 'there are no 3 shards',
  );
  // Nothing is published, and 3 are more than any machine needs for that.
  const apply = page.locator('#apply');
  await apply.waitFor();
  const wanted = Number(/(\d+) shard/.exec((await apply.textContent()) ?? '')?.[1]);
  await apply.click();
  await until(
    async () => (await rows.count()) === wanted,
    () => `there are not ${wanted} shards`,
  );
  await page.getByText(/^Last change/).waitFor();
  await using reading = await startBroker({ flags: ['--shards', '3'] });
  const other = await open(t, {}, `http://${reading.adminAddress}`);
  await show(other.page, '#/shards', 'This console only reads.');
  assert.equal(await other.page.locator('#apply').isVisible(), false);
  assert.equal(await other.page.getByLabel('Number of shards').isVisible(), false);
});

it('a page that is not seen asks nothing; one that is asks once a second', async (t) => {
  if (!requireTool(t, 'chromium')) return;
  const { page, asked } = await open(t);
  await show(page, '#/overview', 'embedded,');
  const hide = (isHidden: boolean): Promise<unknown> =>
    page.evaluate(
      `Object.defineProperty(document, 'hidden', { value: ${isHidden}, configurable: true });
       document.dispatchEvent(new Event('visibilitychange'))`,
    );
  const count = (): number => asked.filter((path) => path === '/api/v1/overview').length;
  const from = count();
  const began = performance.now();
  await until(
    () => count() >= from + 3,
    () => 'it does not ask',
  );
  assert.ok(performance.now() - began > 1_800, 'it asks more than once a second');
  await hide(true);
  const hidden = count();
  await page.waitForTimeout(2_500);
  assert.equal(count(), hidden);
  await page.evaluate("location.hash = '#/nodes'");
  await page.getByRole('heading', { level: 1, name: 'Nodes' }).waitFor();
  await page.evaluate("location.hash = '#/overview'");
  await page.getByRole('heading', { level: 1, name: 'Overview' }).waitFor();
  assert.deepEqual([count(), asked.filter((path) => path === '/api/v1/nodes').length], [hidden, 0]);
  await hide(false);
  await until(
    () => count() > hidden,
    () => 'it does not go on',
  );
});

describe('a broker that goes away', () => {
  it('is told with the time of its last answer, and taken up again when it is back', async (t) => {
    if (!requireTool(t, 'chromium')) return;
    await using going = await startBroker();
    const { page } = await open(t, {}, `http://${going.adminAddress}`, /ERR_CONNECTION|Failed to load resource/);
    await show(page, '#/overview', 'embedded,');
    assert.equal(await page.locator('#outage').isVisible(), false);
    await going.kill();
    await page
      .getByRole('alert')
      .getByText(/^No answer since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d/)
      .waitFor();
    await going.restart();
    await page.locator('#outage').waitFor({ state: 'hidden' });
    assert.equal(await page.locator('#state').textContent(), 'live');
  });
});
