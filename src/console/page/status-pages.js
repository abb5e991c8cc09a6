/** What the node and its cluster are doing: overview, nodes, shards. */
import { post, Refused } from './api.js';
import { Chart, History } from './chart.js';
import { fill, foreign, hashOf, make, namedBy, say, shownBy } from './dom.js';
import { Table } from './table.js';
import { percent, short, size, span, whole } from './text.js';

/** @typedef {import('./main.js').Page} Page @typedef {import('./main.js').Context} Context */

/** A figure with its name. @param {string} title */
function tile(title) {
  const value = make('dd', {});
  return { element: make('div', { class: 'tile' }, make('dt', {}, title), value), value };
}

/** Sentences that need attention; nothing where there are none. */
function warningList() {
  const element = make('ul', { class: 'warnings', hidden: true, 'aria-label': 'Warnings' });
  let shown = '';
  return {
    element,
    /** @param {string[]} warnings */
    update(warnings) {
      const text = warnings.join('\n');
      if (text === shown) return;
      shown = text;
      element.hidden = warnings.length === 0;
      fill(element, ...warnings.map((warning) => make('li', {}, foreign(warning))));
    },
  };
}

/** Turns a counter into a rate. */
class Rate {
  /** @type {{ at: number, count: number } | null} */
  last = null;

  /** A second; null until there are two figures of one process. @param {number} at ms @param {number} count */
  of(at, count) {
    const { last } = this;
    this.last = { at, count };
    if (last === null || at <= last.at || count < last.count || at - last.at > 4_000) return null;
    return ((count - last.count) * 1_000) / (at - last.at);
  }
}

const load = { history: new History(), published: new Rate(), delivered: new Rate() };

/** @returns {Page} */
export function overview() {
  const tiles = {
    published: tile('Published'),
    delivered: tile('Delivered'),
    subjects: tile('Subjects'),
    subscriptions: tile('Subscriptions'),
    flight: tile('In flight'),
    store: tile('Store'),
    total: tile('Messages since start'),
    role: tile('Role'),
    durability: tile('Acknowledged means'),
    log: tile('Log'),
    uptime: tile('Up for'),
    version: tile('Version'),
  };
  const warnings = warningList();
  const rates = new Chart('Messages a second', load.history, short, null);
  const flight = new Chart('Bytes in flight', load.history, size, null);
  const busy = new Chart('Shards: share of time in use', load.history, percent, 1);
  const top = new Table(
    'Subjects that most is published to',
    [
      {
        title: 'Subject',
        isHead: true,
        text: ({ subject, tenant }) => `${tenant} ${subject}`,
        node: ({ subject, tenant }) => subjectLink(subject, tenant),
      },
      { title: 'Shard', isNumber: true, text: ({ shard }) => whole(shard) },
      { title: 'Messages a second', isNumber: true, text: ({ messagesPerSecond }) => short(messagesPerSecond) },
      { title: 'Share', isNumber: true, text: ({ share }) => percent(share) },
    ],
    ({ subject }) => subject,
    'Nothing is published just now.',
  );
  const topSection = make('section', { hidden: true }, make('h2', {}, 'Busiest subjects'), top.element);
  const element = make(
    'div',
    {},
    warnings.element,
    make('dl', { class: 'tiles' }, ...Object.values(tiles).map((one) => one.element)),
    make('div', { class: 'charts' }, rates.element, busy.element, flight.element),
    topSection,
  );
  return {
    title: 'Overview',
    element,
    everyMs: 1_000,
    path: () => 'overview',
    update({ now, status, delivered, shards, top: subjects }) {
      const published = load.published.of(now, status.messagesPublished);
      const sent = load.delivered.of(now, delivered);
      const busiest = Math.max(0, ...shards.map((/** @type {any} */ shard) => shard.utilization));
      load.history.add(now, { published, delivered: sent, flight: status.bytesInFlight, busy: busiest });
      say(tiles.published.value, published === null ? '–' : `${short(published)}/s`);
      say(tiles.delivered.value, sent === null ? '–' : `${short(sent)}/s`);
      say(tiles.subjects.value, `${whole(status.subjects)} of ${whole(status.subjectsMax)}`);
      say(tiles.subscriptions.value, whole(status.subscriptions));
      say(tiles.flight.value, `${whole(status.callsInFlight)} calls, ${size(status.bytesInFlight)}`);
      say(tiles.store.value, `${status.store}, ${size(status.storeBytes)}`);
      say(tiles.total.value, whole(status.messagesPublished));
      say(
        tiles.role.value,
        status.role === 'voter' && status.leader !== '' ? `voter, ${status.leader} leads` : status.role,
      );
      say(tiles.durability.value, status.durability);
      say(tiles.log.value, `term ${whole(status.raftTerm)}, entry ${whole(status.raftApplied)}`);
      say(tiles.uptime.value, span(status.uptimeMs));
      say(tiles.version.value, status.version);
      warnings.update(status.resize === '' ? status.warnings : [...status.warnings, status.resize]);
      rates.update([
        { name: 'published', title: 'published' },
        { name: 'delivered', title: 'delivered' },
      ]);
      flight.update([{ name: 'flight', title: 'in flight' }]);
      busy.update([{ name: 'busy', title: `busiest of ${shards.length}` }]);
      topSection.hidden = subjects === null;
      if (subjects !== null) top.update(subjects);
    },
    close() {
      for (const chart of [rates, flight, busy]) chart.close();
    },
  };
}

/** @param {string} subject @param {string} tenant in whose space it is; '': in none */
export function subjectLink(subject, tenant) {
  const named = namedBy(subject, tenant);
  return make('a', { href: hashOf('messages', named) }, foreign(shownBy(named)));
}

/** @returns {Page} */
export function nodes() {
  const warnings = warningList();
  const summary = make('p', { class: 'summary' });
  const members = new Table(
    'Members as the log has them',
    [
      { title: 'Node', isHead: true, text: ({ nodeId }) => nodeId },
      { title: 'Role', text: ({ role, isLeader }) => (isLeader ? `${role}, leads` : role) },
      {
        title: 'Heard of',
        text: ({ matchIndex, isActive }) => (matchIndex < 0 ? 'not known' : isActive ? 'yes' : 'no'),
      },
      { title: 'Log held', isNumber: true, text: ({ matchIndex }) => (matchIndex < 0 ? '–' : whole(matchIndex)) },
      { title: 'Open allotments', isNumber: true, text: ({ openAllotments }) => whole(openAllotments) },
      { title: 'Clients', text: ({ grpcAddress }) => grpcAddress },
      { title: 'Raft', text: ({ raftAddress }) => raftAddress },
    ],
    ({ nodeId, instanceId }) => `${nodeId}/${instanceId}`,
    'This node runs alone.',
  );
  const seen = new Table(
    'Nodes as gossip sees them',
    [
      { title: 'Node', isHead: true, text: ({ nodeId }) => nodeId, node: ({ nodeId }) => foreign(nodeId) },
      { title: 'Gossip says', text: ({ status }) => (status === '' ? 'never met' : status) },
      { title: 'Member', text: ({ isMember }) => (isMember ? 'yes' : 'no') },
      { title: 'Address', text: ({ gossipAddress }) => gossipAddress },
      { title: 'Difference', text: ({ difference }) => difference, node: ({ difference }) => foreign(difference) },
    ],
    ({ nodeId }) => nodeId,
    'This node does not gossip.',
  );
  return {
    title: 'Nodes',
    element: make(
      'div',
      {},
      warnings.element,
      summary,
      make('section', {}, make('h2', {}, 'Members'), members.element),
      make('section', {}, make('h2', {}, 'Seen by gossip'), seen.element),
    ),
    everyMs: 1_000,
    path: () => 'nodes',
    update({ cluster, status }) {
      const { leader, term, committed, applied, tolerates, toleratesNow, votersWanted } = cluster;
      const can =
        toleratesNow < 0 ? whole(tolerates) : `${whole(toleratesNow)} now, ${whole(tolerates)} when all are well`;
      const lead = leader === '' ? 'no leader is known' : `${leader} leads`;
      say(
        summary,
        status.role === 'alone'
          ? `${status.nodeId} runs alone: no other node takes over if it fails.`
          : `${cluster.nodeId} answers; ${lead} in term ${whole(term)}. Committed ${whole(committed)}, applied here ${whole(applied)}. Voters wanted ${whole(votersWanted)}; may fail: ${can}.`,
      );
      warnings.update(cluster.warnings);
      members.update(cluster.members);
      seen.update(cluster.seen);
    },
  };
}

const shardHistory = new History();

/** @param {Context} context @returns {Page} */
export function shards(context) {
  const rates = new Chart('Messages a second', shardHistory, short, null);
  const busy = new Chart('Share of time in use', shardHistory, percent, 1);
  const waits = new Chart('Wait of a request for its shard', shardHistory, span, null);
  const table = new Table(
    'Shards',
    [
      { title: 'Shard', isHead: true, text: ({ shard }) => whole(shard) },
      { title: 'State', text: ({ serving }) => (serving ? 'serves' : 'is replaced') },
      { title: 'Slots', isNumber: true, text: ({ slots }) => whole(slots) },
      { title: 'Messages/s', isNumber: true, text: ({ messagesPerSecond }) => short(messagesPerSecond) },
      { title: 'Bytes/s', isNumber: true, text: ({ bytesPerSecond }) => size(bytesPerSecond) },
      { title: 'In use', isNumber: true, text: ({ utilization }) => percent(utilization) },
      { title: 'Store busy', isNumber: true, text: ({ storeBusy }) => percent(storeBusy) },
      { title: 'Wait', isNumber: true, text: ({ queueWaitMs }) => span(queueWaitMs) },
      { title: 'Write', isNumber: true, text: ({ storeWriteMs }) => span(storeWriteMs) },
      { title: 'Messages a write', isNumber: true, text: ({ groupMessages }) => short(groupMessages) },
      {
        title: 'Hot subjects',
        text: ({ hotSubjects }) =>
          hotSubjects.map((/** @type {any} */ hot) => `${hot.subject} ${percent(hot.share)}`).join(),
        node: ({ hotSubjects }) => hotList(hotSubjects),
      },
    ],
    ({ shard }) => shard,
    'No shard is there.',
  );
  const change = make('p', { class: 'change', hidden: true, role: 'status' });
  const progress = make('progress', { max: 1, value: 0, hidden: true, 'aria-label': 'Slots moved' });
  const panel = advicePanel(context);
  return {
    title: 'Shards',
    element: make(
      'div',
      {},
      panel.element,
      change,
      progress,
      make('div', { class: 'charts' }, rates.element, busy.element, waits.element),
      make('section', {}, make('h2', {}, 'Shards of this node'), table.element),
    ),
    everyMs: 1_000,
    path: () => 'shards',
    update(data) {
      /** @type {any[]} */
      const list = data.shards;
      const figures = list.flatMap(({ shard, messagesPerSecond, utilization, queueWaitMs }) => [
        [`rate-${shard}`, messagesPerSecond],
        [`busy-${shard}`, utilization],
        [`wait-${shard}`, queueWaitMs],
      ]);
      shardHistory.add(data.now, Object.fromEntries(figures));
      const series = (/** @type {string} */ name) =>
        list.map(({ shard }) => ({ name: `${name}-${shard}`, title: `shard ${shard}` }));
      rates.update(series('rate'));
      busy.update(series('busy'));
      waits.update(series('wait'));
      table.update(list);
      panel.update(data);
      const { running, what, slotsMoved, slotsTotal, pauseMsMax, durationMs, error } = data.change;
      change.hidden = what === '';
      progress.hidden = !running;
      progress.max = Math.max(1, slotsTotal);
      progress.value = slotsMoved;
      const moved = `${whole(slotsMoved)} of ${whole(slotsTotal)} slots moved`;
      const held = `the longest hold of a slot was ${span(pauseMsMax)}`;
      if (running) say(change, `Under way: ${what}. ${moved}, ${held}.`);
      else
        say(
          change,
          `Last change: ${what}. ${moved} in ${span(durationMs)}, ${held}.${error === '' ? '' : ` It ended early: ${error}`}`,
        );
    },
    close() {
      for (const chart of [rates, busy, waits]) chart.close();
    },
  };
}

/** @param {{ subject: string, tenant: string, share: number }[]} hot */
function hotList(hot) {
  const items = hot.map(({ subject, tenant, share }) =>
    make('li', {}, subjectLink(subject, tenant), ` ${percent(share)}`),
  );
  return make('ul', { class: 'plain' }, ...items);
}

/** @param {number} count */
const shardCount = (count) => (count === 1 ? '1 shard' : `${whole(count)} shards`);

/** The advice, and what follows it where that is allowed. @param {Context} context */
function advicePanel(context) {
  const text = make('p', { class: 'advice' });
  const effect = make('p', {});
  const machine = make('p', { class: 'muted' });
  const readOnly = make('p', { class: 'muted', hidden: true });
  const apply = make('button', { type: 'button', class: 'primary', hidden: true, id: 'apply' });
  const count = make('input', { type: 'number', id: 'count', min: 1, max: 64, required: true, inputmode: 'numeric' });
  const form = make(
    'form',
    { class: 'inline', hidden: true, onsubmit: (event) => void resize(event) },
    make('label', { for: 'count' }, 'Number of shards'),
    count,
    make('button', { type: 'submit' }, 'Change'),
  );
  const element = make(
    'section',
    { class: 'card', 'aria-labelledby': 'advice-title' },
    make('h2', { id: 'advice-title' }, 'Advice'),
    text,
    effect,
    machine,
    make('div', { class: 'actions' }, apply, form),
    readOnly,
  );
  let recommended = 0;
  let isBusy = false;

  /** @param {string} path @param {object} body @param {string} done */
  async function change(path, body, done) {
    if (isBusy) return;
    isBusy = true;
    apply.disabled = true;
    try {
      await post(path, body);
      context.say(done);
    } catch (error) {
      context.say(error instanceof Refused ? `Refused: ${error.message}; ${error.next}` : `It failed: ${error}`);
    } finally {
      isBusy = false;
      apply.disabled = false;
    }
  }

  /** @param {Event} event */
  async function resize(event) {
    event.preventDefault();
    const shards = count.valueAsNumber;
    await change('shards/resize', { shards }, `The change to ${shardCount(shards)} has begun.`);
  }

  apply.addEventListener('click', () => {
    void change('advice/apply', { recommended }, `The change to ${shardCount(recommended)} has begun.`);
  });
  return {
    element,
    /** @param {any} data */
    update({ advice, shardsMax, auto, change: { running } }) {
      ({ recommended } = advice);
      const isDifferent = advice.recommended !== advice.shards;
      const what = isDifferent
        ? `Change to ${shardCount(advice.recommended)} from ${advice.shards}`
        : `Stay at ${shardCount(advice.shards)}`;
      say(text, `${what}: ${advice.reason}.`);
      say(effect, isDifferent ? `To expect: ${advice.effect}.` : '');
      const machineText = `${whole(advice.cores)} cores, ${percent(advice.cpuUtilization)} of them in use; main thread ${percent(advice.mainUtilization)}. At most ${whole(shardsMax)} shards.`;
      say(machine, auto ? `${machineText} Advice is followed by itself (shards.auto).` : machineText);
      const { mayWrite, reason, next } = context.session;
      apply.hidden = !mayWrite || !isDifferent || running;
      say(apply, `Change to ${shardCount(advice.recommended)}`);
      form.hidden = !mayWrite || running;
      count.max = String(shardsMax);
      if (count.value === '') count.value = String(advice.shards);
      readOnly.hidden = mayWrite || reason === '';
      say(readOnly, `This console only reads. To change that, ${next}.`);
    },
  };
}
