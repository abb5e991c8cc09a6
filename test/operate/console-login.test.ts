/** The login of the console in a real Chromium. */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import { openPage, startChromium } from '../servers/chromium.ts';
import { hashOf, tokenOf } from '../support/access-pairs.ts';
import { requireTool } from '../support/tools.ts';
import { AccessRig } from './access-rig.ts';
import { accessibilityFaults } from './console-rig.ts';

it('asks for a token, says who one is, and lets one log out', async (t) => {
  if (!requireTool(t, 'chromium')) return;
  const row = (name: string, more: string): string =>
    `  - {name: ${name}, hash: "${hashOf(name)}", observe: true${more}}\n`;
  const rig = await AccessRig.start(`tokens:\n${row('ops', '')}${row('acme', ', tenant: acme')}`);
  t.after(() => rig.dispose());
  const browser = await startChromium();
  t.after(() => browser.close());
  const { page, errors } = await openPage(browser, `http://${rig.broker.adminAddress}`, {}, /40[13]/);
  await page.goto('/');
  const field = page.getByLabel('Token');
  await field.waitFor();
  // Where there is nothing to go to there is no menu.
  assert.deepEqual(await page.evaluate(accessibilityFaults), ['not one nav']);
  await field.fill('wrong');
  await page.keyboard.press('Enter');
  await page.getByText('is not one that this broker takes').waitFor();
  assert.equal(await field.inputValue(), '');
  await field.fill(tokenOf('ops'));
  await page.getByRole('button', { name: 'Log in' }).click();
  await page.getByRole('heading', { name: 'Overview' }).waitFor();
  await page.getByText('token ops').waitFor();
  assert.deepEqual(await page.evaluate(accessibilityFaults), []);
  assert.equal(await page.evaluate('document.cookie'), '', 'scripts do not see the session');
  await page.reload();
  await page.getByText('token ops').waitFor();
  await page.getByRole('button', { name: 'Log out' }).click();
  await field.waitFor();
  // To who is of a tenant the pages of the whole node are not shown, also not as the first one.
  await page.goto('/');
  await field.fill(tokenOf('acme'));
  await page.getByRole('button', { name: 'Log in' }).click();
  await page.getByRole('heading', { name: 'Subjects' }).waitFor();
  const shown = await page.getByRole('navigation').getByRole('link').allTextContents();
  assert.deepEqual(shown, ['Subjects', 'Messages', 'Subscriptions', 'Connections', 'Tenants']);
  await page.goto('/#/settings');
  await page.getByRole('alert').getByText('the caller is of one tenant').waitFor();
  assert.deepEqual(errors, []);
});
