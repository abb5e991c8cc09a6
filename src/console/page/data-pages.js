/** Subjects, and who reads and writes them: subscriptions, connections, tenants, settings. */
import { query } from './api.js';
import { foreign, hashOf, make, say } from './dom.js';
import { subjectLink } from './status-pages.js';
import { Table } from './table.js';
import { percent, short, size, span, whole } from './text.js';

/** @typedef {import('./main.js').Page} Page @typedef {import('./main.js').Context} Context */

/** A field that changes the address of the page when it is sent. @param {string} label @param {string} value @param {(text: string) => void} onSend */
function filter(label, value, onSend) {
  const input = make('input', {
    type: 'search',
    id: 'filter',
    value,
    maxlength: 255,
    autocomplete: 'off',
    spellcheck: 'false',
  });
  const element = make(
    'form',
    {
      class: 'inline',
      role: 'search',
      onsubmit: (event) => {
        event.preventDefault();
        onSend(input.value);
      },
    },
    make('label', { for: 'filter' }, label),
    input,
    make('button', { type: 'submit' }, 'Show'),
  );
  return element;
}

/** @param {Context} context @returns {Page} */
export function subjects(context) {
  const prefix = context.parameters.get('prefix') ?? '';
  const page = context.parameters.get('page') ?? '';
  const table = new Table(
    'Subjects',
    [
      {
        title: 'Subject',
        isHead: true,
        text: ({ name, tenant }) => `${tenant} ${name}`,
        node: ({ name, tenant }) => subjectLink(name, tenant),
      },
      { title: 'First', isNumber: true, text: ({ first }) => whole(first) },
      { title: 'Head', isNumber: true, text: ({ head }) => whole(head) },
      { title: 'Ids kept', isNumber: true, text: ({ first, head }) => whole(Math.max(0, head - first + 1)) },
      { title: 'Not settled', isNumber: true, text: ({ head, settled }) => whole(head - settled) },
    ],
    ({ name, tenant }) => `${tenant} ${name}`,
    prefix === '' ? 'Nothing was published yet.' : 'No subject begins with that.',
  );
  const begin = make('a', { class: 'button', href: hashOf('subjects', { prefix }) }, 'From the beginning');
  const more = make('a', { class: 'button', href: '#', hidden: true }, 'More subjects');
  begin.hidden = page === '';
  return {
    title: 'Subjects',
    element: make(
      'div',
      {},
      filter('Begins with', prefix, (text) => context.go(hashOf('subjects', { prefix: text }))),
      table.element,
      make('p', { class: 'actions' }, begin, more),
      make('p', { class: 'muted' }, 'In the order of their slots. A subject is for life.'),
    ),
    everyMs: 2_000,
    path: () => `subjects${query({ prefix, page })}`,
    update({ subjects: rows, next }) {
      table.update(rows);
      more.hidden = next === '';
      more.setAttribute('href', hashOf('subjects', { prefix, page: next }));
    },
  };
}

const ORDERS = { lag: 'lag', messages: 'messages sent', unsent: 'unsent bytes', age: 'age', subject: 'subject' };
const STATES = { tail: 'at the tail', 'catch-up': 'catches up', waiting: 'client takes nothing' };

/** @param {Context} context @returns {Page} */
export function subscriptions(context) {
  const order = context.parameters.get('order') ?? 'lag';
  const prefix = context.parameters.get('prefix') ?? '';
  const table = new Table(
    'Subscriptions',
    [
      {
        title: 'Subject',
        isHead: true,
        text: ({ subject, space }) => `${space} ${subject}`,
        node: ({ subject, space }) => subjectLink(subject, space),
      },
      { title: 'Lag', isNumber: true, text: ({ lag }) => whole(lag) },
      { title: 'State', text: ({ state }) => STATES[/** @type {keyof typeof STATES} */ (state)] ?? state },
      { title: 'Sent', isNumber: true, text: ({ sent }) => whole(sent) },
      { title: 'Messages', isNumber: true, text: ({ messages }) => whole(messages) },
      { title: 'Unsent', isNumber: true, text: ({ unsentBytes }) => size(unsentBytes) },
      { title: 'Kind', text: ({ kind }) => kind },
      { title: 'Pattern', text: ({ pattern }) => pattern, node: ({ pattern }) => foreign(pattern) },
      { title: 'Client', text: ({ peer }) => peer, node: ({ peer }) => foreign(peer) },
      { title: 'Tenant', text: ({ tenant }) => tenant, node: ({ tenant }) => foreign(tenant) },
      { title: 'Open for', isNumber: true, text: ({ openMs }) => span(openMs) },
    ],
    // Subjects of one Consume stream share its number.
    ({ kind, id, space, subject }) => `${kind} ${id} ${space} ${subject}`,
    'Nobody subscribes just now.',
  );
  const summary = make('p', { class: 'summary' });
  const options = Object.entries(ORDERS).map(([value, title]) =>
    make('option', { value, selected: value === order }, title),
  );
  const select = make('select', { id: 'order' }, ...options);
  select.addEventListener('change', () => context.go(hashOf('subscriptions', { order: select.value, prefix })));
  return {
    title: 'Subscriptions',
    element: make(
      'div',
      {},
      filter('Begins with', prefix, (text) => context.go(hashOf('subscriptions', { order, prefix: text }))),
      make('p', { class: 'inline' }, make('label', { for: 'order' }, 'Most first by'), select),
      summary,
      table.element,
    ),
    everyMs: 1_000,
    path: () => `subscriptions${query({ order, prefix })}`,
    update({ subscriptions: rows, total, lagMax }) {
      say(summary, `${whole(rows.length)} of ${whole(total)} on this node. Largest lag: ${whole(lagMax)} ids.`);
      table.update(rows);
    },
  };
}

/** @returns {Page} */
export function connections() {
  const table = new Table(
    'Connections',
    [
      { title: 'Client', isHead: true, text: ({ peer }) => peer, node: ({ peer }) => foreign(peer) },
      { title: 'Program', text: ({ agent }) => agent, node: ({ agent }) => foreign(agent) },
      { title: 'Tenant', text: ({ tenant }) => tenant, node: ({ tenant }) => foreign(tenant) },
      { title: 'Calls open', isNumber: true, text: ({ calls }) => whole(calls) },
      { title: 'Publish streams', isNumber: true, text: ({ publishStreams }) => whole(publishStreams) },
      { title: 'Subscriptions', isNumber: true, text: ({ subscriptions: count }) => whole(count) },
      { title: 'Calls', isNumber: true, text: ({ callsTotal }) => whole(callsTotal) },
      { title: 'In', isNumber: true, text: ({ bytesIn }) => size(bytesIn) },
      { title: 'Out', isNumber: true, text: ({ bytesOut }) => size(bytesOut) },
      { title: 'Open for', isNumber: true, text: ({ openMs }) => span(openMs) },
    ],
    ({ peer }) => peer,
    'No client is connected.',
  );
  const summary = make('p', { class: 'summary' });
  return {
    title: 'Connections',
    element: make('div', {}, summary, table.element),
    everyMs: 1_000,
    path: () => 'connections',
    update({ connections: rows, total }) {
      say(summary, `${whole(rows.length)} of ${whole(total)} on this node, most bytes first.`);
      table.update(rows);
    },
  };
}

/** @param {number} value @param {(value: number) => string} format */
const limit = (value, format) => (value === 0 ? 'no limit' : `${format(value)}/s`);

/** @returns {Page} */
export function tenants() {
  const table = new Table(
    'Tenants',
    [
      { title: 'Tenant', isHead: true, text: ({ tenant }) => tenant, node: ({ tenant }) => foreign(tenant) },
      {
        title: 'Subjects',
        text: ({ subjectPrefix }) => subjectPrefix,
        node: ({ subjectPrefix }) => foreign(subjectPrefix === '' ? 'all' : subjectPrefix),
      },
      { title: 'Messages/s', isNumber: true, text: ({ messagesPerSecond }) => short(messagesPerSecond) },
      {
        title: 'Messages/s at most',
        isNumber: true,
        text: ({ messagesPerSecondMax }) => limit(messagesPerSecondMax, short),
      },
      {
        title: 'Used',
        isNumber: true,
        text: ({ messagesPerSecond, messagesPerSecondMax }) =>
          messagesPerSecondMax === 0 ? '–' : percent(messagesPerSecond / messagesPerSecondMax),
      },
      { title: 'Bytes/s', isNumber: true, text: ({ bytesPerSecond }) => size(bytesPerSecond) },
      { title: 'Bytes/s at most', isNumber: true, text: ({ bytesPerSecondMax }) => limit(bytesPerSecondMax, size) },
      { title: 'Messages', isNumber: true, text: ({ messages }) => whole(messages) },
      { title: 'Refused', isNumber: true, text: ({ refused }) => whole(refused) },
      { title: 'Windows shrunk', isNumber: true, text: ({ shrunk }) => whole(shrunk) },
    ],
    ({ tenant, subjectPrefix }) => `${tenant}\n${subjectPrefix}`,
    'No tenant has been seen yet.',
  );
  const summary = make('p', { class: 'summary' });
  return {
    title: 'Tenants',
    element: make('div', {}, summary, table.element),
    everyMs: 1_000,
    path: () => 'tenants',
    update({ tenants: rows, quotas, nodes }) {
      const shared = nodes > 1 ? `, divided between ${whole(nodes)} nodes` : '';
      const none = 'No quota is set, and without one nothing is counted: broker quotas set, or quotas.rules.';
      say(summary, quotas.length === 0 ? none : `Quotas: ${whole(quotas.length)}${shared}.`);
      table.update(rows);
    },
  };
}

/** @returns {Page} */
export function settings() {
  const table = new Table(
    'Settings of this node',
    [
      { title: 'Key', isHead: true, text: ({ key }) => key },
      { title: 'Value', text: ({ value }) => value, node: ({ value }) => foreign(value) },
      {
        title: 'From',
        text: ({ origin, place }) => (place === '' ? origin : `${origin}: ${place}`),
        node: ({ origin, place }) => foreign(place === '' ? origin : `${origin}: ${place}`),
      },
      { title: 'Without a restart', text: ({ live }) => (live ? 'can be changed' : '') },
    ],
    ({ key }) => key,
    'No settings.',
  );
  return {
    title: 'Settings',
    element: make('div', {}, make('p', { class: 'muted' }, 'Secrets are never shown.'), table.element),
    everyMs: 10_000,
    path: () => 'settings',
    update({ settings: rows }) {
      table.update(rows);
    },
  };
}
