/** Looking at messages: a list by id or time, and one message as JSON, text or bytes. */
import { query } from './api.js';
import { fill, foreign, hashOf, make, namedBy, putForeign, say, shownBy } from './dom.js';
import { Table } from './table.js';
import { bytesOf, clock, hexDump, indentJson, size, textOf, whole } from './text.js';

/** @typedef {import('./main.js').Page} Page @typedef {import('./main.js').Context} Context */

const PAGE = 20;
const PREVIEW_CHARACTERS = 120;
const WIDE = matchMedia('(min-width: 40rem)');

/** @param {Context} context @returns {Page} */
export function messages(context) {
  const subject = context.parameters.get('subject') ?? '';
  const named = namedBy(subject, context.parameters.get('tenant') ?? '');
  const id = context.parameters.get('id') ?? '';
  const time = context.parameters.get('time') ?? '';
  const isLive = id === '' && time === '';
  const table = new Table(
    'Messages',
    [
      {
        title: 'Id',
        isHead: true,
        text: ({ id: number }) => whole(number),
        node: ({ id: number }) => make('a', { href: hashOf('message', { ...named, id: number }) }, whole(number)),
      },
      { title: 'Published', text: ({ absent, publishedAt }) => (absent === null ? clock(publishedAt) : '–') },
      { title: 'Size', isNumber: true, text: ({ absent, bodyBytes }) => (absent === null ? size(bodyBytes) : '–') },
      {
        title: 'Body',
        text: (row) => JSON.stringify([row.absent, row.body, row.bodyBytes]),
        node: (row) => preview(row),
      },
    ],
    ({ id: number }) => number,
    'No message is there.',
  );
  const facts = make('p', { class: 'summary' });
  const ways = make('p', { class: 'actions' });
  const list = make(
    'section',
    { hidden: subject === '' },
    make('h2', {}, foreign(shownBy(named))),
    facts,
    ways,
    table.element,
  );
  const hint = make(
    'p',
    { class: 'summary', hidden: subject !== '' },
    'Name a subject here, or choose one under Subjects.',
  );
  return {
    title: 'Messages',
    element: make('div', {}, finder(context, { ...named, id, time }), hint, list),
    // What has an id or a time does not change; the newest do.
    everyMs: isLive ? 1_000 : 0,
    path: () => (subject === '' ? null : `messages${query({ ...named, id, time, limit: PAGE })}`),
    update({ subject: { first, head, settled }, from, messages: rows }) {
      say(
        facts,
        `Kept from id ${whole(first)} to ${whole(head)}; settled up to ${whole(settled)}.${isLive ? ' The newest are shown, and followed.' : ''}`,
      );
      const to = rows.at(-1)?.id ?? from;
      const older = Math.max(first, from - PAGE);
      const links = [
        from > first && make('a', { class: 'button', href: hashOf('messages', { ...named, id: first }) }, 'Oldest'),
        from > first && make('a', { class: 'button', href: hashOf('messages', { ...named, id: older }) }, 'Older'),
        to < head && make('a', { class: 'button', href: hashOf('messages', { ...named, id: to + 1 }) }, 'Newer'),
        !isLive && make('a', { class: 'button', href: hashOf('messages', named) }, 'Newest'),
      ];
      const shown = links.map((link) => (link === false ? '' : link.href)).join();
      if (ways.dataset.shown !== shown) fill(ways, ...links);
      ways.dataset.shown = shown;
      // As in a log of others: the newest are what one looks for.
      table.update(isLive ? rows.toReversed() : rows);
    },
  };
}

/** @param {Context} context @param {{ subject: string, tenant?: string, id: string, time: string }} given */
function finder(context, given) {
  const at = given.time === '' ? '' : clock(Number(given.time)).replace(' ', 'T').slice(0, 19);
  const subject = make('input', {
    type: 'text',
    id: 'subject',
    value: given.subject,
    required: true,
    maxlength: 255,
    autocomplete: 'off',
    spellcheck: 'false',
  });
  const id = make('input', {
    type: 'text',
    id: 'id',
    value: given.id,
    inputmode: 'numeric',
    pattern: '[1-9][0-9]{0,15}',
    title: 'an id, from 1',
    autocomplete: 'off',
  });
  const time = make('input', { type: 'datetime-local', id: 'time', step: 1, value: at });
  const field = (/** @type {string} */ label, /** @type {HTMLInputElement} */ input) =>
    make('div', { class: 'field' }, make('label', { for: input.id }, label), input);
  return make(
    'form',
    {
      class: 'finder',
      role: 'search',
      onsubmit: (event) => {
        event.preventDefault();
        const ms = time.value === '' ? Number.NaN : new Date(time.value).getTime();
        const where = id.value !== '' ? { id: id.value } : Number.isNaN(ms) ? {} : { time: ms };
        context.go(hashOf('messages', { ...namedBy(subject.value, given.tenant ?? ''), ...where }));
      },
    },
    field('Subject', subject),
    field('From id', id),
    field('or from local time', time),
    make('button', { type: 'submit', class: 'primary' }, 'Show'),
  );
}

/** @param {any} row */
function preview({ absent, body, bodyBytes }) {
  if (absent !== null) return make('span', { class: 'absent' }, `${absent.reason}: ${absent.when}`);
  const bytes = bytesOf(body);
  const isCut = bytes.length < bodyBytes;
  const text = textOf(bytes, isCut);
  if (bodyBytes === 0) return make('span', { class: 'muted' }, 'empty');
  const shown =
    text === null ? hexOf(bytes.subarray(0, PREVIEW_CHARACTERS / 4)) : text.slice(0, PREVIEW_CHARACTERS).toWellFormed();
  const isAll = !isCut && (text === null ? bytes.length <= PREVIEW_CHARACTERS / 4 : text.length <= PREVIEW_CHARACTERS);
  return foreign(isAll ? shown : `${shown}…`, text === null ? 'preview hex' : 'preview');
}

/** @param {Uint8Array} bytes */
function hexOf(bytes) {
  return [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join(' ');
}

/** @param {Context} context @returns {Page} */
export function message(context) {
  const subject = context.parameters.get('subject') ?? '';
  const named = namedBy(subject, context.parameters.get('tenant') ?? '');
  const id = Number(context.parameters.get('id') ?? '1');
  const content = make('div', {});
  const back = make('a', { class: 'button', href: hashOf('messages', { ...named, id }) }, 'List from here');
  const previous = make(
    'a',
    { class: 'button', rel: 'prev', href: hashOf('message', { ...named, id: Math.max(1, id - 1) }) },
    'Previous id',
  );
  const next = make(
    'a',
    { class: 'button', rel: 'next', href: hashOf('message', { ...named, id: id + 1 }) },
    'Next id',
  );
  previous.hidden = id <= 1;
  /** @type {(() => void) | undefined} */
  let dispose;
  return {
    title: `Message ${whole(id)}`,
    element: make(
      'div',
      {},
      make(
        'p',
        { class: 'summary' },
        'Subject ',
        make('a', { href: hashOf('messages', named) }, foreign(shownBy(named))),
      ),
      make('p', { class: 'actions' }, previous, next, back),
      content,
    ),
    everyMs: 0,
    path: () => `messages${query({ ...named, id, limit: 1 })}`,
    update({ messages: [found] }) {
      const { absent } = found;
      if (absent === null) {
        const shown = wholeMessage(context, found);
        dispose = shown.close;
        fill(content, shown.element);
      } else {
        const verdict = make('p', {}, `There is no message with this id: ${absent.when}.`);
        const helps = make('p', { class: 'muted' }, `What to do: ${absent.next}.`);
        fill(content, make('section', { class: 'card' }, make('h2', {}, absent.reason), verdict, helps));
      }
    },
    close: () => dispose?.(),
  };
}

/** A message with all that is known of it. @param {Context} context @param {any} found */
function wholeMessage(context, { publishedAt, expirationSeconds, body, bodyBytes, headers }) {
  const facts = make(
    'dl',
    { class: 'facts' },
    ...fact('Published', clock(publishedAt), new Date(publishedAt).toISOString()),
    ...fact('Expires', expirationSeconds === 0 ? 'never' : clock(publishedAt + expirationSeconds * 1_000)),
    ...fact('Body', size(bodyBytes)),
    ...fact('Headers', whole(headers.length)),
  );
  const table = new Table(
    'Headers',
    [
      { title: 'Key', isHead: true, text: ({ key }) => key, node: ({ key }) => foreign(key) },
      {
        title: 'Value',
        text: ({ value }) => value,
        node: ({ value, valueBytes }) => headerValue(bytesOf(value), valueBytes),
      },
    ],
    ({ index }) => index,
    'It has no headers.',
  );
  table.update(headers.map((/** @type {object} */ header, /** @type {number} */ index) => ({ ...header, index })));
  const shown = bodyView(context, bytesOf(body), bodyBytes);
  return {
    element: make(
      'div',
      {},
      facts,
      make('section', {}, make('h2', {}, 'Headers'), table.element),
      make('section', {}, make('h2', {}, 'Body'), shown.element),
    ),
    close: shown.close,
  };
}

/** @param {string} name @param {string} text @param {string} [title] */
function fact(name, text, title = '') {
  return [make('dt', {}, name), make('dd', { title }, text)];
}

/** @param {Uint8Array} bytes @param {number} total */
function headerValue(bytes, total) {
  const isCut = bytes.length < total;
  const text = textOf(bytes, isCut);
  const end = isCut ? `… (${size(total)})` : '';
  return foreign(`${text ?? hexOf(bytes)}${end}`, text === null ? 'hex' : '');
}

/** @param {Context} context @param {Uint8Array} bytes @param {number} total */
function bodyView(context, bytes, total) {
  const isCut = bytes.length < total;
  const text = textOf(bytes, isCut);
  const json = text === null || isCut ? null : indentJson(text);
  const views = [
    { name: 'JSON', text: json, why: 'it is not JSON, or nested too deep' },
    { name: 'Text', text, why: 'it is not UTF-8' },
    { name: 'Hex', text: '', why: '' },
  ];
  let chosen = json !== null ? 'JSON' : text !== null ? 'Text' : 'Hex';
  const output = make('pre', { tabindex: 0, class: 'body', 'aria-label': 'Body' });
  /** As it is copied: with what `putForeign` replaces. */
  let raw = '';
  const draw = () => {
    const view = views.find(({ name }) => name === chosen);
    output.replaceChildren();
    output.classList.toggle('dump', chosen === 'Hex');
    raw = chosen === 'Hex' ? hexDump(bytes, WIDE.matches ? 16 : 8) : (view?.text ?? '');
    putForeign(output, raw, true);
    output.setAttribute('aria-label', `Body as ${chosen}`);
  };
  const choices = views.map((view) => {
    const input = make('input', {
      type: 'radio',
      name: 'view',
      id: `view-${view.name}`,
      value: view.name,
      checked: view.name === chosen,
      disabled: view.text === null,
    });
    input.addEventListener('change', () => {
      chosen = view.name;
      draw();
    });
    const title = view.text === null ? view.why : '';
    return make('span', { class: 'choice', title }, input, make('label', { for: input.id }, view.name));
  });
  WIDE.addEventListener('change', draw);
  draw();
  const copy = make('button', { type: 'button', onclick: () => void copyOf(context, output, raw) }, 'Copy');
  const cut = make(
    'p',
    { class: 'muted', hidden: !isCut },
    `The first ${size(bytes.length)} of ${size(total)}; \`broker fetch\` writes all of it.`,
  );
  const fieldset = make('fieldset', { class: 'choices' }, make('legend', {}, 'Show as'), ...choices);
  return {
    element: make('div', {}, make('div', { class: 'actions' }, fieldset, copy), cut, output),
    close: () => WIDE.removeEventListener('change', draw),
  };
}

/** What is shown, to the clipboard; where the browser gives no clipboard to pages without TLS, it is selected. @param {Context} context @param {HTMLElement} output @param {string} raw */
async function copyOf(context, output, raw) {
  try {
    await navigator.clipboard.writeText(raw);
    context.say('Copied.');
  } catch {
    getSelection()?.selectAllChildren(output);
    context.say('Selected: copy it with Ctrl+C.');
  }
}
