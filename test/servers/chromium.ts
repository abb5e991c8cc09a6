/** A real Chromium for the web console: what a page asked for, said, and refused is kept. */
import { spawnSync } from 'node:child_process';
import { type Browser, type BrowserContext, type BrowserContextOptions, chromium, type Page } from 'playwright-core';

/** Loads and clicks may take as long on a machine that has other things to do. */
const ACTION_MS = 30_000;

export async function startChromium(): Promise<Browser> {
  const executablePath = spawnSync('sh', ['-c', 'command -v chromium'], { encoding: 'utf8' }).stdout.trim();
  // Root may not use the sandbox, containers have a small /dev/shm and no GPU.
  const args = ['--no-sandbox', '--disable-dev-shm-usage', '--disable-gpu', '--force-color-profile=srgb'];
  return await chromium.launch({ executablePath, args });
}

/** What a page did that it must not: each list is empty for a page that behaves. */
export interface Watched {
  readonly page: Page;
  readonly context: BrowserContext;
  /** Errors of scripts and of the console, violations of the policy among them. */
  readonly errors: string[];
  /** Requests to other origins; they are not let through. */
  readonly strays: string[];
  /** Dialogs that opened: nothing of the page opens one, so a script of somebody else has. */
  readonly dialogs: string[];
  /** Requests to the own origin. */
  readonly asked: string[];
}

/** `expected`: errors of the console that the test brings about. */
export async function openPage(
  browser: Browser,
  origin: string,
  options: BrowserContextOptions = {},
  expected = /^$/,
): Promise<Watched> {
  const context = await browser.newContext({ baseURL: origin, locale: 'en-GB', timezoneId: 'UTC', ...options });
  context.setDefaultTimeout(ACTION_MS);
  const page = await context.newPage();
  const watched: Watched = { page, context, errors: [], strays: [], dialogs: [], asked: [] };
  await context.route(/.*/, async (route) => {
    const url = route.request().url();
    if (url.startsWith(`${origin}/`)) {
      watched.asked.push(url.slice(origin.length));
      await route.continue();
    } else {
      watched.strays.push(url);
      await route.abort();
    }
  });
  page.on('pageerror', (error) => watched.errors.push(`${error}`));
  page.on('console', (message) => {
    if (message.type() === 'error' && !expected.test(message.text())) watched.errors.push(message.text());
  });
  page.on('dialog', (dialog) => {
    watched.dialogs.push(dialog.message());
    void dialog.dismiss();
  });
  return watched;
}
