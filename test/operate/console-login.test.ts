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
  const rig = await AccessRig.start(`tokens:\n  - {name: ops, hash: "${hashOf('ops')}", observe: true}\n`);
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
  assert.deepEqual(errors, []);
});
