import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { test } from 'node:test';
import { slotOfSubject } from '../../src/base/subject-space.ts';
import { VERSION } from '../../src/base/version.ts';
import { CliError, EXIT } from '../../src/cli/failure.ts';
import { ROOT } from '../support/source-tree.ts';
import { temporaryFolder } from '../support/temporary.ts';
import { broker, CHANGED, FakeBroker, Sink, STATUS } from './cli-rig.ts';

test('publish BODY prints the id and passes every option on', async () => {
  const argv = [
    'publish',
    'a.b',
    'hello',
    '--header',
    'k=v=w',
    '--header',
    'e=',
    '--expire',
    '1m',
    '--producer',
    'p',
    '--sequence',
    '7',
  ];
  const { code, out, fake } = await broker(argv);
  assert.equal(code, 0);
  assert.equal(out, '1\n');
  assert.deepEqual(fake.published, [
    {
      subject: 'a.b',
      body: Buffer.from('hello'),
      options: {
        headers: [
          { key: 'k', value: Buffer.from('v=w') },
          { key: 'e', value: Buffer.from('') },
        ],
        expirationSeconds: 60,
        producer: { id: 'p', sequence: 7 },
      },
    },
  ]);
  assert.ok(fake.isClosed);
});

for (const argv of [
  ['publish', 's', '-'],
  ['publish', 's'],
]) {
  test(`${argv.join(' ')} reads the whole input as one body`, async () => {
    const { fake } = await broker(argv, { input: 'x\ny\n' });
    assert.deepEqual(
      fake.published.map((input) => String(input.body)),
      ['x\ny\n'],
    );
  });
}

for (const inFlight of [1, 2, 100]) {
  test(`publish --lines with ${inFlight} in flight sends each line and prints the ids in order`, async () => {
    const argv = [
      'publish',
      's',
      '--lines',
      '--in-flight',
      String(inFlight),
      '--producer',
      'p',
      '--sequence',
      '5',
      '-o',
      'json',
    ];
    const { code, out, fake } = await broker(argv, { input: 'one\n\nthree' });
    assert.equal(code, 0);
    assert.deepEqual(
      fake.published.map((input) => [String(input.body), input.options.producer?.sequence]),
      [
        ['one', 5],
        ['', 6],
        ['three', 7],
      ],
    );
    assert.equal(out, '{"id":1,"subject":"s"}\n{"id":2,"subject":"s"}\n{"id":3,"subject":"s"}\n');
  });
}

test('publish --lines stops at the line that fails and names it', async () => {
  const fake = new FakeBroker();
  fake.failAt = 3;
  const { code, out, err } = await broker(['publish', 's', '--lines'], { fake, input: 'a\nb\nc\nd\n' });
  assert.equal(code, 1);
  assert.equal(out, '1\n2\n');
  assert.equal(err, 'broker: line 3: the queue is full (QUEUE_FULL)\n  wait and retry\n');
});

test('progress is shown on a terminal only', async () => {
  const terminal = new Sink({ isTTY: true });
  await broker(['publish', 's', '--lines'], { input: 'a\nb\n', stderr: terminal });
  assert.match(terminal.text, /\r2 published, /);
  assert.equal((await broker(['publish', 's', '--lines'], { input: 'a\nb\n' })).err, '');
});

test('subscribe prints a body a line and stops after --count', async () => {
  const { code, out, fake } = await broker(['subscribe', 's', '--from', '2', '--count', '2']);
  assert.equal(code, 0);
  assert.equal(out, 'one\ntwo\n');
  assert.deepEqual(fake.asked, [{ subjects: ['s'], start: { id: 2 } }]);
});

test('subscribe -o json prints one object a line', async () => {
  const { out } = await broker(['subscribe', 's', '--count', '1', '-o', 'json']);
  assert.equal(
    out,
    '{"id":1,"subject":"a.b","publishedAt":"1970-01-01T00:00:01.000Z","headers":[{"key":"k","value":"v"}],"body":"one"}\n',
  );
});

test('fetch writes the bytes of the body as they are, with a line break only on a terminal', async () => {
  assert.deepEqual((await broker(['fetch', 's', '4'])).bytes, Buffer.from([0xff, 0x00]));
  const terminal = new Sink({ isTTY: true });
  await broker(['fetch', 's', '4'], { stdout: terminal });
  assert.deepEqual(terminal.bytes, Buffer.from([0xff, 0x00, 0x0a]));
});

test('fetch -o json gives base64 for bytes that are not text', async () => {
  const { out } = await broker(['fetch', 's', '4', '-o', 'json']);
  const parsed = JSON.parse(out) as Record<string, unknown>;
  assert.equal(parsed.bodyBase64, '/wA=');
  assert.ok(!('body' in parsed));
});

test('status says what needs attention, of the node and of its cluster, each once; exit code 0', async () => {
  const fake = new FakeBroker();
  const warnings = [
    'no leader is known: see `broker cluster status`',
    'voter n3 is not heard of',
    'low on \u001b[2Jspace',
  ];
  fake.node = { ...STATUS, role: 'voter', leader: '', ready: false, notReady: ['no leader'], warnings };
  const { code, out } = await broker(['status'], { fake });
  assert.equal(code, 0);
  assert.match(out, /^cluster +broker, voter, no leader is known; 3 voters, of which 1 may fail, 0 from here on$/m);
  assert.match(out, /^ready +no: no leader$/m);
  assert.match(out, /^warnings +2\n! voter n3 is not heard of\n! low on \ufffd\[2Jspace\n$/m);
  const json = JSON.parse((await broker(['status', '-o', 'json'], { fake })).out);
  assert.deepEqual([json.tolerates, json.toleratesNow, json.warnings.length], [1, 0, 2]);
});

test('top prints each list once, or the one that is asked for, as tables or as one object', async () => {
  const { out, code } = await broker(['top', '--once']);
  assert.equal(code, 0);
  assert.match(out, /^shards: 1\nSHARD .*\n.*orders\.eu\n\nsubjects: 1\n/);
  assert.match(out, /\nsubscriptions: 3\n +LAG .*\n1,500 +waiting +orders\.eu/);
  // Who may see a list is told no more of the node than that.
  const fake = new FakeBroker();
  fake.status = () => Promise.reject(new CliError(EXIT.failed, 'the caller is of one tenant (TENANT_BOUND)', ''));
  const alone = await broker(['top', '--once', '--pane', 'subjects'], { fake });
  assert.match(alone.out, /orders\.eu/);
  assert.equal((await broker(['top', '--once', '--pane', 'subjects', '-o', 'json'], { fake })).code, EXIT.failed);
  const lag = await broker([
    'top',
    '--once',
    '--pane',
    'subscriptions',
    '--sort',
    'messages',
    '--limit',
    '5',
    '-o',
    'json',
  ]);
  const json = JSON.parse(lag.out);
  assert.deepEqual([json.node.nodeId, json.totals, json.lag_max], ['n1', { subscriptions: 3 }, 1_500]);
  assert.deepEqual(
    [json.subscriptions.length, json.subscriptions[0].lag, json.subscriptions[0].age_s, json.shards],
    [1, 1_500, 45, undefined],
  );
  assert.deepEqual(lag.fake.asked, [{ subscriptions: { order: 1, limit: 5, prefix: '' } }]);
  for (const [argv, pattern] of [
    [['--sort', 'lag'], /--sort needs --pane/],
    [['--pane', 'shards', '--sort', 'lag'], /shards can be sorted by shard, busy/],
    [['--limit', '1001'], /at most 1000/],
    [['--interval', '1'], /must be a duration/],
    [['--pane', 'nosuch'], /Allowed choices/],
  ] as const) {
    const wrong = await broker(['top', '--once', ...argv]);
    assert.equal(wrong.code, 2);
    assert.match(wrong.err, pattern);
  }
});

test('top asks in the name of the tenant that it is given', async () => {
  const { code, connected } = await broker(['top', '--once', '--pane', 'subjects', '--tenant', 'acme']);
  assert.deepEqual([code, connected.map(({ tenant }) => tenant)], [0, ['acme']]);
});

test('access explain says nothing is allowed that no broker takes', async (t) => {
  const file = join(temporaryFolder(t), 'access.yaml');
  writeFileSync(file, 'anonymous: {allow: {publish: [">"], subscribe: [">"], fetch: [">"]}}\n');
  const ask = async (verb: string, subject: string) =>
    await broker(['access', 'explain', '--file', file, '--anonymous', verb, subject]);
  for (const [verb, subject] of [
    ['publish', 'a..b'],
    ['fetch', ' a'],
    ['fetch', ''],
    ['subscribe', '>.a'],
    ['subscribe', 'a\u0007'],
    ['publish', 'a'.repeat(256)],
  ] as const) {
    const { code, out, err } = await ask(verb, subject);
    assert.deepEqual([code, out], [2, ''], `${verb} ${JSON.stringify(subject)}`);
    assert.match(err, /^broker: (publish|fetch|subscribe) ".*": \S.*\n {2}\S/);
  }
  for (const subject of ['a.*.b', '>', 'a>.*b']) assert.equal((await ask('subscribe', subject)).code, 0, subject);
  assert.match((await ask('publish', 'a.*')).out, /a pattern cannot be used to publish/);
});

test('status and subjects print tables or JSON', async () => {
  const { out: status } = await broker(['status']);
  assert.match(status, /^node +n1, version 1\.2\.3, up 3h12m\ncluster +broker, alone/);
  assert.match(status, /^subjects +1,234 of 1,000,000 \(0%\)\n/m);
  assert.match(status, /^warnings +none\n$/m);
  const json = JSON.parse((await broker(['status', '-o', 'json'])).out);
  assert.deepEqual([json.nodeId, json.subjects, json.voters, json.warnings], ['n1', 1_234, 3, []]);
  assert.equal(
    (await broker(['subjects', 'list'])).out,
    'SUBJECT    FIRST  SETTLED   HEAD\na              1        9     10\nlong.name      1    1,000  1,000\n',
  );
  assert.equal(
    (await broker(['subjects', 'info', 'x', '-o', 'json'])).out,
    `{"subject":"x","first":1,"settled":2,"head":3,"slot":${slotOfSubject('x')}}\n`,
  );
  assert.match((await broker(['subjects', 'trim', 'x', '--before', '5'])).out, /^first {4}5$/m);
});

test('subjects list has a column of tenants where one has a space', async () => {
  const fake = new FakeBroker();
  fake.listSubjects = async function* () {
    yield { tenant: '', subject: 'a', first: 1, settled: 9, head: 9 };
    yield { tenant: 'acme', subject: 'a', first: 1, settled: 2, head: 2 };
  };
  const table =
    'TENANT  SUBJECT  FIRST  SETTLED  HEAD\n-       a            1        9     9\nacme    a            1        2     2\n';
  assert.equal((await broker(['subjects', 'list'], { fake })).out, table);
  const rows = (await broker(['subjects', 'list', '-o', 'json'], { fake })).out.split('\n');
  assert.deepEqual(rows.slice(0, 2), [
    '{"subject":"a","first":1,"settled":9,"head":9}',
    '{"tenant":"acme","subject":"a","first":1,"settled":2,"head":2}',
  ]);
});

test('health says what the service answers, and ends with 0 only if it serves', async () => {
  const fake = new FakeBroker();
  const serving = await broker(['health', '-o', 'json'], { fake });
  assert.deepEqual([serving.code, serving.out], [0, '{"address":"127.0.0.1:8081","service":"","status":"SERVING"}\n']);
  for (const status of ['NOT_SERVING', 'UNKNOWN', 'SERVICE_UNKNOWN'] as const) {
    fake.healthStatus = status;
    const { code, out } = await broker(['health', 'broker.Broker', '-o', 'json'], { fake });
    assert.deepEqual([code, JSON.parse(out).status], [1, status]);
  }
  assert.deepEqual(fake.asked.at(-1), { service: 'broker.Broker' });
});

test('health asks every address that it is given, and one that does not serve makes the answer', async () => {
  const answers = ['SERVING', 'NOT_SERVING', 'SERVING'] as const;
  const asked: string[] = [];
  const { code, out } = await broker(['health', '--address', 'a:1,b:2,c:3', '-o', 'json'], {
    connect: ({ addresses }) => {
      const fake = new FakeBroker();
      fake.healthStatus = answers[asked.length] ?? 'UNKNOWN';
      asked.push(addresses.join());
      return fake;
    },
  });
  assert.deepEqual(asked, ['a:1', 'b:2', 'c:3']);
  assert.equal(code, 1);
  assert.deepEqual(
    out
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line).status),
    answers,
  );
});

test('health without an address asks where the broker of the same environment listens', async () => {
  const addressOf = async (environment: Record<string, string>): Promise<unknown> =>
    (await broker(['health'], { environment })).connected[0]?.addresses.join(' ');
  assert.equal(await addressOf({}), '127.0.0.1:8081');
  assert.equal(await addressOf({ BROKER_GRPC_LISTEN: '0.0.0.0:9000' }), '127.0.0.1:9000');
  assert.equal(await addressOf({ BROKER_GRPC_LISTEN: '[::]:9000' }), '[::1]:9000');
  assert.equal(await addressOf({ BROKER_GRPC_LISTEN: '10.0.0.7:9000' }), '10.0.0.7:9000');
  assert.equal(await addressOf({ BROKER_GRPC_LISTEN: 'nonsense' }), '127.0.0.1:8081');
  assert.equal(await addressOf({ BROKER_GRPC_LISTEN: '0.0.0.0:9000', BROKER_ADDRESS: 'h:2' }), 'h:2');
});

test('subjects list says when it is cut', async () => {
  const { out, err } = await broker(['subjects', 'list', '--limit', '1', '-o', 'json']);
  assert.equal(out.split('\n').length, 2);
  assert.match(err, /there are more than 1/);
});

test('the address is --address, else BROKER_ADDRESS, else the default port on loopback', async () => {
  const environment = { BROKER_ADDRESS: 'h:2' };
  const addressOf = async (argv: string[], env: Record<string, string>): Promise<unknown> =>
    (await broker(['status', ...argv], { environment: env })).connected[0]?.addresses.join(' ');
  assert.equal(await addressOf(['--address', '[::1]:1'], environment), '[::1]:1');
  assert.equal(await addressOf([], environment), 'h:2');
  assert.equal(await addressOf(['--address', 'a:1, b:2'], {}), 'a:1 b:2');
  assert.equal(await addressOf([], {}), '127.0.0.1:8081');
});

test('serve hands the checked configuration over and answers its exit code', async () => {
  const { code, served } = await broker(['serve', '--shards', '3'], { environment: { BROKER_LOG_LEVEL: 'warn' } });
  assert.equal(code, 0);
  assert.equal(served[0]?.shards.count, 3);
  assert.equal(served[0]?.log.level, 'warn');
  assert.equal((await broker(['serve'], { serve: async () => 7 })).code, 7);
});

test('serve with a wrong configuration: exit code 2, one line, nothing started', async () => {
  const { code, err, served } = await broker(['serve', '--shrads', '3']);
  assert.equal(code, 2);
  assert.equal(err, 'broker: unknown flag --shrads: did you mean --shards?\n');
  assert.deepEqual(served, []);
});

test('config print names origins, config check only checks', async () => {
  const { out } = await broker(['config', 'print', '--origins', '--shards', '3', '-o', 'json']);
  const rows = out
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>);
  assert.deepEqual(
    rows.find((row) => row.key === 'shards.count'),
    { key: 'shards.count', value: '3', origin: 'flag', place: '--shards' },
  );
  assert.equal(
    (await broker(['config', 'check', '--shards', '3', '-o', 'json'])).out,
    '{"valid":true,"keys_set":1,"file":null,"problems":[],"warnings":[]}\n',
  );
  assert.equal((await broker(['config', 'check', '--shards', 'x'])).code, 2);
});

const WRONG: readonly (readonly [readonly string[], RegExp])[] = [
  [['publsh'], /unknown command 'publsh' \(Did you mean publish\?\)/],
  [['publish'], /missing required argument 'subject'/],
  [['publish', 's', 'b', 'c'], /too many arguments/],
  [['publish', 's', 'b', '--lines'], /--lines reads the input/],
  [['publish', 's', 'b', '--producer', 'p'], /--producer and --sequence go together/],
  [['publish', 's', 'b', '--sequence', '0', '--producer', 'p'], /--sequence 0: must be a whole number from 1/],
  [['publish', 's', 'b', '--header', 'nope'], /--header nope: must be KEY=VALUE/],
  [['publish', 's', 'b', '--expire', '500ms'], /--expire 500ms: must be a duration of whole seconds/],
  [['publish', 's', 'b', '--expire', '30000d'], /--expire 30000d/],
  [['publish', 's', 'b', '--in-flight', '1001'], /--in-flight 1001: must be at most 1000/],
  [['publish', 's', 'b', '-o', 'xml'], /-o xml: must be table or json/],
  [['publish', 's', 'b', '--timeout', '5'], /--timeout 5: must be a duration/],
  [['publish', 's', 'b', '--address', 'host'], /--address host: must be HOST:PORT/],
  [['publish', 's', 'b', '--exprie', '5s'], /unknown option '--exprie' \(Did you mean --expire\?\)/],
  [['fetch', 's', '0'], /ID 0: must be a whole number from 1/],
  [['fetch', 's', '9007199254740992'], /ID 9007199254740992/],
  [['subscribe', 's', '--from', 'yesterday'], /--from yesterday: must be new, earliest/],
  [['subscribe', 's', '--from', '0'], /--from 0: must be a whole number/],
  [['subscribe', 's', '--count', '-1'], /--count -1: must be a whole number/],
  [['bench', 'publish', '--batch', '10001'], /--batch 10001: must be at most 10000/],
  [['bench', 'fetch', '--msgs', '0'], /--msgs 0: must be a whole number/],
  [['subscribe', 'a.*', '--broadcasts'], /--broadcasts: only with a single subject/],
  [['subjects', 'trim', 's'], /required option '--before <id>' not specified/],
];

for (const [argv, expected] of WRONG) {
  test(`wrong usage is exit code 2 and says the rule: broker ${argv.join(' ')}`, async () => {
    const { code, err, out, connected } = await broker(argv);
    assert.equal(code, 2);
    assert.match(err, expected);
    assert.equal(out, '');
    assert.deepEqual(connected, []);
  });
}

for (const argv of [[], ['subjects'], ['shards'], ['config']]) {
  test(`"${['broker', ...argv].join(' ')}" alone shows what there is, exit code 2`, async () => {
    const { code, out } = await broker(argv);
    assert.equal(code, 2);
    assert.match(out, /^Usage: broker/);
  });
}

test('shards list prints a row a shard, with its hottest subject', async () => {
  const { out } = await broker(['shards', 'list']);
  assert.match(out, /^SHARD +SLOTS +SERVING +BUSY +STORE_BUSY/);
  assert.match(out, /0 +1,024 +true +0\.51 +0\.25 +1,234 +0\.1 +1\.5 +33 +orders\.eu 50% \(slot \d+\)/);
});

test('shards list -o json has all hot subjects of a shard', async () => {
  const row = JSON.parse((await broker(['shards', 'list', '-o', 'json'])).out);
  assert.deepEqual([row.shard, row.slots, row.messages_s], [0, 1_024, 1_234]);
  const hot = [['orders.eu', 0.5] as const, ['orders.us', 0.13] as const].map(([subject, share]) => ({
    ...{ subject, tenant: '', share },
    slot: slotOfSubject(subject, ''),
  }));
  assert.deepEqual(row.hot_subjects, hot);
  const { measured } = JSON.parse((await broker(['shards', 'advise', '-o', 'json'])).out);
  assert.deepEqual(measured, [row]);
});

test('shards resize waits for the end of the change; --no-wait does not', async () => {
  const fake = new FakeBroker();
  fake.changes = [{ ...CHANGED, running: true, slotsMoved: 100 }];
  const waited = await broker(['shards', 'resize', '2', '-o', 'json'], { fake });
  assert.deepEqual(fake.asked, [{ shards: 2 }]);
  assert.deepEqual(fake.changes, []);
  assert.deepEqual(JSON.parse(waited.out), {
    change: '1 -> 2 shards',
    running: false,
    slots_moved: 512,
    pause_ms_max: 3.46,
    ms: 120,
  });
  const begun = await broker(['shards', 'resize', '2', '--no-wait', '-o', 'json']);
  assert.equal(JSON.parse(begun.out).running, true);
});

test('a change that ended early is told with exit code 1, and that it can go on', async () => {
  const fake = new FakeBroker();
  fake.changes = [{ ...CHANGED, error: 'a shard died (5 times)' }];
  const { code, err } = await broker(['shards', 'resize', '2'], { fake });
  assert.equal(code, 1);
  assert.match(err, /1 -> 2 shards: ended early: a shard died \(5 times\)\n {2}what was moved stays/);
});

test('shards move and its arguments', async () => {
  const { fake, code } = await broker(['shards', 'move', '7', '0']);
  assert.deepEqual([code, fake.asked], [0, [{ slot: 7, shard: 0 }]]);
  assert.equal((await broker(['shards', 'move', '-1', '0'])).code, 2);
  assert.equal((await broker(['shards', 'resize', '0'])).code, 2);
});

test('shards advise says why; --apply resizes, unless the number is right', async () => {
  const plain = await broker(['shards', 'advise']);
  assert.match(plain.out, /recommended +2\n(?:.*\n)*reason +shard 0 is busy/);
  assert.deepEqual(plain.fake.asked, []);
  const { recommended, measured } = JSON.parse((await broker(['shards', 'advise', '-o', 'json'])).out);
  assert.deepEqual([recommended, measured.map(({ shard }: { shard: number }) => shard)], [2, [0]]);
  assert.deepEqual((await broker(['shards', 'advise', '--apply'])).fake.asked, [{ shards: 2 }]);
  const fake = new FakeBroker();
  fake.recommended = 1;
  assert.deepEqual((await broker(['shards', 'advise', '--apply'], { fake })).fake.asked, []);
});

const COMMANDS = [
  'serve',
  'publish',
  'subscribe',
  'fetch',
  'status',
  'top',
  'check',
  'health',
  'subjects list',
  'subjects info',
  'subjects trim',
  'shards list',
  'shards resize',
  'shards move',
  'shards advise',
  'cluster members',
  'cluster status',
  'cluster add',
  'cluster remove',
  'cluster leave',
  'cluster promote',
  'cluster transfer-leader',
  'bench publish',
  'bench subscribe',
  'bench fetch',
  'config print',
  'config check',
  'config show',
  'config set',
  'debug bundle',
];

for (const command of COMMANDS) {
  test(`help of ${command} ends with an example of itself`, async () => {
    const { code, out } = await broker([...command.split(' '), '--help']);
    assert.equal(code, 0);
    assert.match(out, new RegExp(`Example:\\n(.*\\n)*.*broker ${command}`));
  });
}

test('help of the reading benches says what became of the flags that the publishing one has', async () => {
  const flags = ['--size', '--batch', '--throughput'];
  for (const command of ['subscribe', 'fetch']) {
    const { out } = await broker(['bench', command, '--help']);
    for (const flag of flags) assert.ok(out.includes(flag), `${command} ${flag}`);
  }
});

test('a reader that leaves early is no error', async () => {
  const stdout = new Sink({ failure: Object.assign(new Error('write EPIPE'), { code: 'EPIPE' }) });
  const { code, err, fake } = await broker(['subscribe', 's'], { stdout });
  assert.equal(code, 0);
  assert.equal(err, '');
  assert.ok(fake.isClosed);
});

test('output that fails otherwise is told', async () => {
  const stdout = new Sink({ failure: Object.assign(new Error('ENOSPC: no space'), { code: 'ENOSPC' }) });
  const { code, err } = await broker(['fetch', 's', '1'], { stdout });
  assert.equal(code, 1);
  assert.equal(err, 'broker: the output could not be written: ENOSPC: no space\n');
});

test('nobody at the address: exit code 3, and what to do', async () => {
  const { connectWithClient } = await import('../../src/cli/client-connection.ts');
  const { code, err } = await broker(['fetch', 's', '1', '--address', '127.0.0.1:1'], { connect: connectWithClient });
  assert.equal(code, 3);
  assert.match(err, /^broker: cannot connect to 127\.0\.0\.1:1\n {2}start a broker with `broker serve`/);
  const stream = await broker(['subscribe', 's', '--address', '127.0.0.1:1'], { connect: connectWithClient });
  assert.equal(stream.code, 3);
});

test('Ctrl-C while it waits for input: exit code 130, no message, the connection closed', async () => {
  for (const argv of [
    ['publish', 's', '--lines'],
    ['publish', 's', '-'],
  ]) {
    const stdin = Object.assign(new Readable({ read: () => undefined }), { isTTY: false });
    setImmediate(() => process.emit('SIGINT'));
    const { code, err, fake } = await broker(argv, { stdin });
    assert.equal(code, 130);
    assert.equal(err, '');
    assert.ok(fake.isClosed);
  }
});

test('`broker --version` is the version of the package', async () => {
  const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string };
  assert.equal(VERSION, version);
  assert.equal(
    execFileSync(process.execPath, [join(ROOT, 'bin/broker.mjs'), '--version'], { encoding: 'utf8' }),
    `${version}\n`,
  );
});
