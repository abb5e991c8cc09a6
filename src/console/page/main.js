/** The frame of the console: pages by address, one question a second, and what is said when nobody answers. */
import { get, post, Refused, session } from './api.js';
import { connections, settings, subjects, subscriptions, tenants } from './data-pages.js';
import { byId, fill, foreign, hashOf, make, say } from './dom.js';
import { loginForm } from './login.js';
import { message, messages } from './messages.js';
import { nodes, overview, shards } from './status-pages.js';
import { clock } from './text.js';

/**
 * @typedef {object} Page
 * @property {string} title
 * @property {HTMLElement} element
 * @property {number} everyMs 0: asked once
 * @property {() => string | null} path of the API; null: there is nothing to ask
 * @property {(data: any) => void} update
 * @property {() => void} [close] lets go of what outlives its elements
 *
 * @typedef {object} Context
 * @property {URLSearchParams} parameters of the address
 * @property {(hash: string) => void} go
 * @property {(text: string) => void} say to everybody, also those who do not see the page
 * @property {{ mayWrite: boolean, reason: string, next: string }} session
 */

/** @type {Record<string, { title: string, key: string, make: (context: Context) => Page, isHidden?: boolean }>} */
const PAGES = {
  overview: { title: 'Overview', key: 'o', make: overview },
  nodes: { title: 'Nodes', key: 'n', make: nodes },
  shards: { title: 'Shards', key: 's', make: shards },
  subjects: { title: 'Subjects', key: 'j', make: subjects },
  messages: { title: 'Messages', key: 'm', make: messages },
  subscriptions: { title: 'Subscriptions', key: 'u', make: subscriptions },
  connections: { title: 'Connections', key: 'c', make: connections },
  tenants: { title: 'Tenants', key: 't', make: tenants },
  settings: { title: 'Settings', key: 'e', make: settings },
  message: { title: 'Message', key: '', make: message, isHidden: true },
};
/** Waits after questions that nobody answered, in ms; the last one from then on. */
const RETRIES_MS = [1_000, 2_000, 5_000];
const SAID_MS = 6_000;
const CHORD_MS = 1_500;

class Frame {
  /** @type {Page | null} */
  page = null;
  /** @type {AbortController} */
  asking = new AbortController();
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  timer;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  saying;
  failures = 0;
  lastAnswer = Date.now();
  session = {
    mayWrite: false,
    reason: '',
    next: '',
    without: /** @type {string[]} */ ([]),
    needsLogin: false,
    caller: '',
  };
  isFirst = true;
  isGreeted = true;

  start() {
    addEventListener('hashchange', () => this.open());
    document.addEventListener('visibilitychange', () => {
      if (!document.hidden) this.ask();
      else this.pause();
    });
    byId('logout').addEventListener('click', () => this.logOut());
    // What is shown hangs on who asks.
    void this.greet().then(() => {
      if (!this.session.needsLogin) this.open();
    });
  }

  /** What may be done here is told once. */
  async greet() {
    try {
      this.session = await session();
    } catch {
      // Nobody answers, or the node is starting: it is asked again with the first answer.
      this.isGreeted = false;
      return;
    }
    this.isGreeted = true;
    for (const link of byId('menu').querySelectorAll('a')) {
      link.hidden = this.session.without.includes(link.dataset.page ?? '');
    }
    const { caller, needsLogin } = this.session;
    byId('caller').hidden = caller === '';
    say(byId('name'), caller);
    if (needsLogin) this.askToLogIn();
  }

  /** In the place of the page, until somebody has. */
  askToLogIn() {
    if (document.querySelector('form.login') !== null) return;
    this.pause();
    this.page?.close?.();
    this.page = null;
    document.title = 'Log in – Broker';
    byId('menu').hidden = true;
    say(byId('state'), 'log in');
    const title = make('h1', { tabindex: -1 }, 'Log in');
    fill(
      byId('content'),
      title,
      loginForm(() => void this.loggedIn()),
    );
    document.getElementById('token')?.focus();
  }

  async loggedIn() {
    await this.greet();
    byId('menu').hidden = false;
    this.open();
  }

  logOut() {
    const again = () => void this.greet();
    post('logout', {}).then(again, again);
  }

  open() {
    if (this.session.needsLogin) return;
    const [name = '', query = ''] = location.hash.replace(/^#\/?/, '').split('?', 2);
    if (location.hash === '#content') return;
    // To who is of one tenant the overview of the node is not shown.
    const first = this.session.without.includes('overview') ? 'subjects' : 'overview';
    const known = Object.hasOwn(PAGES, name) ? name : first;
    const entry = /** @type {typeof PAGES[string]} */ (PAGES[known]);
    this.pause();
    this.page?.close?.();
    const frame = this;
    const page = entry.make({
      parameters: new URLSearchParams(query),
      go: (hash) => {
        if (location.hash === hash) this.open();
        else location.hash = hash;
      },
      say: (text) => this.tell(text),
      get session() {
        return frame.session;
      },
    });
    this.page = page;
    const title = make('h1', { tabindex: -1 }, page.title);
    this.problem = make('div', { class: 'problem', role: 'alert', hidden: true });
    fill(byId('content'), title, this.problem, page.element);
    document.title = `${page.title} – Broker`;
    for (const link of byId('menu').querySelectorAll('a')) {
      const isHere = link.dataset.page === (known === 'message' ? 'messages' : known);
      if (isHere) {
        link.setAttribute('aria-current', 'page');
        link.scrollIntoView({ block: 'nearest', inline: 'nearest' });
      } else link.removeAttribute('aria-current');
    }
    // Whoever goes by keyboard or screen reader is taken to the new page; the first one is where the browser begins.
    if (!this.isFirst) title.focus();
    this.isFirst = false;
    this.ask();
  }

  pause() {
    clearTimeout(this.timer);
    this.asking.abort();
  }

  ask() {
    this.pause();
    const { page } = this;
    if (page === null || document.hidden) return;
    const path = page.path();
    if (path === null) return;
    this.asking = new AbortController();
    const { signal } = this.asking;
    const began = performance.now();
    get(path, signal).then(
      (data) => {
        if (signal.aborted) return;
        this.answered();
        this.problem?.setAttribute('hidden', '');
        this.name(data);
        page.update(data);
        if (page.everyMs > 0) this.later(Math.max(0, page.everyMs - (performance.now() - began)));
      },
      (error) => {
        if (signal.aborted) return;
        if (error instanceof Refused) this.refused(error);
        else this.unanswered();
      },
    );
  }

  /** @param {number} ms */
  later(ms) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.ask(), ms);
  }

  answered() {
    const wasAway = this.failures > 0;
    this.failures = 0;
    this.lastAnswer = Date.now();
    byId('outage').hidden = true;
    byId('state').className = 'state live';
    say(byId('state'), 'live');
    // The node may have been started anew, with other settings.
    if (wasAway || !this.isGreeted) void this.greet();
  }

  unanswered() {
    this.failures += 1;
    const wait = RETRIES_MS[Math.min(this.failures, RETRIES_MS.length) - 1] ?? 0;
    const outage = byId('outage');
    outage.hidden = false;
    say(outage, `No answer since ${clock(this.lastAnswer).slice(0, 19)}. What is shown is of then; trying again.`);
    byId('state').className = 'state away';
    say(byId('state'), 'no answer');
    this.later(wait);
  }

  /** The node is there, and does not show this. @param {Refused} error */
  refused(error) {
    this.answered();
    // The session has ended, or the node was started anew.
    if (error.status === 401) {
      void this.greet();
      return;
    }
    const { problem } = this;
    if (problem !== undefined) {
      problem.hidden = false;
      const text = `${error.message}${error.next === '' ? '' : `; ${error.next}`}.`;
      if (problem.textContent !== text) fill(problem, foreign(text));
    }
    // What was wrong with the question stays wrong; what the node lacks just now may come.
    const isPassing = error.status === 503 || error.status === 429 || error.status === 504;
    if (isPassing) this.later(RETRIES_MS[0] ?? 0);
  }

  /** @param {{ node?: string, cluster?: unknown }} data */
  name({ node }) {
    if (typeof node === 'string') say(byId('node'), node);
  }

  /** @param {string} text */
  tell(text) {
    const said = byId('said');
    clearTimeout(this.saying);
    say(said, text);
    said.classList.add('shown');
    this.saying = setTimeout(() => {
      said.classList.remove('shown');
      say(said, '');
    }, SAID_MS);
  }
}

function drawMenu() {
  const links = Object.entries(PAGES)
    .filter(([, { isHidden }]) => isHidden !== true)
    .map(([name, { title, key }]) =>
      make('a', { href: hashOf(name), 'data-page': name, title: `g then ${key}` }, title),
    );
  fill(byId('menu'), ...links);
}

function drawKeys() {
  const dialog = /** @type {HTMLDialogElement} */ (byId('keys'));
  const row = (/** @type {string[]} */ keys, /** @type {string} */ what) =>
    make(
      'tr',
      {},
      make('th', { scope: 'row' }, ...keys.flatMap((key) => [make('kbd', {}, key), ' '])),
      make('td', {}, what),
    );
  const rows = Object.values(PAGES)
    .filter(({ isHidden }) => isHidden !== true)
    .map(({ title, key }) => row(['g', key], title));
  const close = make('button', { type: 'button', onclick: () => dialog.close() }, 'Close');
  fill(
    dialog,
    make('h2', { id: 'keys-title' }, 'Keyboard'),
    make(
      'table',
      {},
      make(
        'tbody',
        {},
        ...rows,
        row(['/'], 'Go to the first field'),
        row(['['], 'Previous message'),
        row([']'], 'Next message'),
        row(['?'], 'This help'),
      ),
    ),
    close,
  );
  byId('help').addEventListener('click', () => dialog.showModal());
  return dialog;
}

/** @param {HTMLDialogElement} dialog */
function listenToKeys(dialog) {
  let chordUntil = 0;
  document.addEventListener('keydown', (event) => {
    const { target, key } = event;
    const isField = target instanceof HTMLElement && target.matches('input:not([type=radio]), select, textarea');
    if (event.ctrlKey || event.altKey || event.metaKey || isField || dialog.open) return;
    if (performance.now() < chordUntil) {
      chordUntil = 0;
      const found = Object.entries(PAGES).find(([, page]) => page.key !== '' && page.key === key);
      if (found !== undefined) location.hash = hashOf(found[0]);
      return;
    }
    if (key === 'g') chordUntil = performance.now() + CHORD_MS;
    else if (key === '?') dialog.showModal();
    else if (key === '[')
      /** @type {HTMLElement | null} */ (document.querySelector('a[rel=prev]:not([hidden])'))?.click();
    else if (key === ']') /** @type {HTMLElement | null} */ (document.querySelector('a[rel=next]'))?.click();
    else if (key === '/') {
      const field = /** @type {HTMLElement | null} */ (document.querySelector('main input'));
      if (field === null) return;
      event.preventDefault();
      field.focus();
    }
  });
}

byId('skip').addEventListener('click', (event) => {
  event.preventDefault();
  byId('content').focus();
});
drawMenu();
listenToKeys(drawKeys());
new Frame().start();
