import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Redactor } from '../../src/base/redactor.ts';
import { createLogger } from '../../src/telemetry/log.ts';

const SECRET = 's3cret/"x" y';

for (const [name, text, shown] of [
  ['as it is', `a ${SECRET} b ${SECRET}`, 'a *** b ***'],
  ['as JSON has it', `{"a":${JSON.stringify(SECRET)}}`, '{"a":"***"}'],
  ['as URLs have it', `x?y=${encodeURIComponent(SECRET)}&z`, 'x?y=***&z'],
  ['inside of a word', `a${SECRET}b`, 'a***b'],
  ['in none of its forms', 's3cret', 's3cret'],
] as const) {
  test(`a secret is taken out ${name}`, () => assert.equal(new Redactor([SECRET]).redact(text), shown));
}

test('a secret that has another one in it is taken out as a whole', () => {
  assert.equal(new Redactor(['abc-12345', 'abc-12345-and-more']).redact('<abc-12345-and-more>'), '<***>');
});

test('passwords of URLs are taken out, known or not, and the rest of the URL stays', () => {
  const text = 'cannot reach postgres://me:pa%20ss@db:5432/x and amqp://a:b@c, but http://host:80/ and a@b:c are left';
  assert.equal(
    new Redactor([]).redact(text),
    'cannot reach postgres://me:***@db:5432/x and amqp://a:***@c, but http://host:80/ and a@b:c are left',
  );
});

test('secrets that are short, or words, take no innocent text along', () => {
  assert.equal(new Redactor(['', 'a1', 'postgres', 'x'.repeat(7)]).redact('postgres a1'), 'postgres a1');
});

for (const format of ['json', 'pretty'] as const) {
  test(`a log in ${format} has no secret, whoever writes it, and neither have its newest lines`, () => {
    const written: string[] = [];
    const destination = { write: (line: string) => written.push(line) };
    const log = createLogger({ level: 'debug', format, destination, redactor: new Redactor([SECRET]) });
    log.info(`one ${SECRET}`, { url: 'postgres://me:pw@db/x' });
    log.forward('raft', { kind: 'log', level: 'debug', message: 'two', fields: { error: `no: ${SECRET}` } });
    for (const text of [written.join(''), log.recent.text()]) {
      assert.equal(text.match(/\*\*\*/g)?.length, 3);
      assert.doesNotMatch(text, /s3cret|pw@/);
    }
  });
}

test('the level of a log is changed while it is in use, also for lines of threads', () => {
  const written: string[] = [];
  const log = createLogger({ level: 'warn', format: 'json', destination: { write: (line) => written.push(line) } });
  const both = (): void => {
    log.info('of the main thread');
    log.forward('raft', { kind: 'log', level: 'info', message: 'of a thread', fields: {} });
  };
  both();
  log.setLevel('info');
  both();
  log.setLevel('error');
  both();
  assert.equal(written.length, 2);
});

test('the newest lines of a log are kept, bounded by their number and by their size', () => {
  const log = createLogger({ level: 'info', format: 'json', destination: { write: () => undefined } });
  for (let n = 1; n <= 5_000; n += 1) log.info('line', { n });
  const numbers = (): number[] =>
    log.recent
      .text()
      .split('\n')
      .filter((line) => line.startsWith('{') && line.endsWith('}'))
      .map((line) => (JSON.parse(line) as { n: number }).n);
  assert.deepEqual([numbers().length, numbers()[0], numbers().at(-1)], [2_000, 3_001, 5_000]);
  for (let n = 1; n <= 300; n += 1) log.info('long', { n, text: 'x'.repeat(15_000) });
  assert.ok(log.recent.text().length <= 2 * 1024 * 1024);
  assert.equal(numbers().at(-1), 300);
  log.info('endless', { text: 'x'.repeat(10_000_000) });
  assert.ok(log.recent.text().length <= 2 * 1024 * 1024);
  assert.match(log.recent.text(), /"endless"|"text":"x{1000}/);
});
