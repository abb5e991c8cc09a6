/** Rules of quotas as text, in the configuration and on the command line. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { ConfigError } from '../../src/config/config-error.ts';
import { loadConfig } from '../../src/config/load.ts';
import {
  formatQuotaRules,
  parseQuotaName,
  parseQuotaRules,
  QUOTA_RULES_MAX,
  type QuotaRule,
} from '../../src/config/quota-rules.ts';
import { FakeBroker, broker as run } from './cli-rig.ts';

function rule(tenant: string, prefix: string, messagesPerSecond: number, bytesPerSecond: number): QuotaRule {
  return { tenant, prefix, messagesPerSecond, bytesPerSecond };
}

/** One that takes every change of the rules. */
class QuotaBroker extends FakeBroker {
  rules = 'acme=5msg/s, *=1msg/s';

  override async settings() {
    return [{ key: 'quotas.rules', value: this.rules, origin: 'flag', place: '', live: true }];
  }

  override async changeSetting(key: string, value: string) {
    assert.equal(key, 'quotas.rules');
    this.rules = value;
    return { key, value, origin: 'changed', place: '', live: true };
  }
}

describe('rules as text', () => {
  it('have a tenant or "*", a prefix, and one or two limits or none', () => {
    const text = `
      acme = 1000msg/s 1MiB/s; acme/orders=0.5msg/s
      a.b-c_D/x.=4096/s, *=unlimited,*/a=b=20msg/s
    `;
    assert.deepEqual(parseQuotaRules(text), [
      rule('acme', '', 1_000, 1 << 20),
      rule('acme', 'orders', 0.5, 0),
      rule('a.b-c_D', 'x.', 0, 4_096),
      rule('', '', 0, 0),
      rule('', 'a=b', 20, 0),
    ]);
    assert.deepEqual(parseQuotaRules(' ;\n, '), []);
  });

  for (const [text, problem] of [
    ['acme', /a rule is such as/],
    ['acme=', /a limit is such as/],
    ['=5msg/s', /a tenant is/],
    ['a b=5msg/s', /a tenant is/],
    ['acme/=5msg/s', /the beginning of subjects/],
    ['acme/%zz=5msg/s', /%25/],
    ['acme=5', /a limit is such as/],
    ['acme=5msgs/s', /a limit is such as/],
    ['acme=1MB/s', /a limit is such as/],
    ['acme=0msg/s', /a limit is 0.001 to/],
    ['acme=1msg/s 2msg/s', /one limit of messages/],
    ['acme=1KiB/s 2KiB/s', /one limit of messages and one of bytes/],
    ['acme=unlimited 1msg/s', /a limit is such as/],
    ['acme=1msg/s, acme=2msg/s', /two rules for acme/],
    ['*/a=1msg/s, */a=2msg/s', /two rules for \*\/a/],
    [`a/${'x'.repeat(256)}=1msg/s`, /255 bytes/],
    [Array.from({ length: QUOTA_RULES_MAX + 1 }, (_, i) => `t${i}=1msg/s`).join(), /more than 100 rules/],
  ] as const) {
    it(`${text.slice(0, 40)} is refused with what is wrong with it`, () => {
      assert.match(String(parseQuotaRules(text)), problem);
      assert.throws(
        () => loadConfig({ argv: ['--quotas-rules', text], environment: {} }),
        (error) => error instanceof ConfigError && problem.test(error.problems.join()),
      );
    });
  }

  it('what is written is read as the same rules', () => {
    const rate = fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 1e9 }));
    const rules = fc.uniqueArray(
      fc.record(
        {
          tenant: fc.oneof(fc.constant(''), fc.stringMatching(/^[A-Za-z0-9._-]{1,64}$/)),
          prefix: fc.string({ unit: 'grapheme', maxLength: 30 }).map((text) => text.toWellFormed()),
          messagesPerSecond: rate,
          bytesPerSecond: rate,
        },
        { noNullPrototype: true },
      ),
      { selector: ({ tenant, prefix }) => JSON.stringify([tenant, prefix]), maxLength: 10 },
    );
    fc.assert(
      fc.property(rules, (list) => {
        assert.deepEqual(parseQuotaRules(formatQuotaRules(list)), list, formatQuotaRules(list));
      }),
    );
  });

  it('are a flag, a variable, and in the file a text of several lines or a list', () => {
    const expected = [rule('acme', '', 1_000, 1 << 20), rule('', '', 5, 0)];
    const rulesOf = (argv: readonly string[], yaml = '', environment = {}) =>
      loadConfig({ argv, environment, readFile: () => yaml }).config.quotas.rules;
    const text = 'acme=1000msg/s 1MiB/s, *=5msg/s';
    assert.deepEqual(rulesOf(['--quotas-rules', text]), expected);
    assert.deepEqual(rulesOf([], '', { BROKER_QUOTAS_RULES: text }), expected);
    const file = ['--config', 'broker.yaml'];
    assert.deepEqual(rulesOf(file, 'quotas:\n  rules: |\n    acme=1000msg/s 1MiB/s\n    *=5msg/s\n'), expected);
    assert.deepEqual(rulesOf(file, 'quotas:\n  rules:\n    - acme=1000msg/s 1MiB/s\n    - "*=5msg/s"\n'), expected);
    assert.deepEqual(rulesOf([]), []);
  });
});

describe('broker quotas', () => {
  it('list shows use, share and totals, and the rules on the side', async () => {
    const { out, err, fake } = await run(['quotas', 'list']);
    assert.match(out, /TENANT +PREFIX +MESSAGES_S +MESSAGES_S_MAX/);
    assert.match(out, /acme +orders +12\.3 +50 +1,001 +- +1,234 +99,000 +3 +4/);
    assert.match(err, /acme\/orders=100msg\/s, \*=1MiB\/s, divided between 2 nodes/);
    assert.deepEqual(fake.asked, [{ tenants: 100 }]);
    const json = JSON.parse((await run(['quotas', 'list', '-o', 'json', '--limit', '5'])).out) as object;
    assert.equal(Object.entries(json).length, 10);
  });

  it('set and remove change one rule and keep the others', async () => {
    const fake = new QuotaBroker();
    const last = async (...argv: readonly string[]) => {
      assert.equal((await run(['quotas', ...argv], { fake })).code, 0);
      return fake.rules;
    };
    assert.equal(await last('set', 'acme', '10msg/s', '1MiB/s'), '*=1msg/s, acme=10msg/s 1MiB/s');
    assert.equal(await last('set', 'acme/a b', 'unlimited'), '*=1msg/s, acme=10msg/s 1MiB/s, acme/a b=unlimited');
    assert.equal(await last('remove', '*'), 'acme=10msg/s 1MiB/s, acme/a b=unlimited');
    assert.equal(await last('remove', 'acme'), 'acme/a b=unlimited');
    assert.equal(await last('remove', 'acme/a b'), '(none)');
    assert.equal(await last('set', 'x', '1msg/s'), 'x=1msg/s');
    for (const wrong of [
      ['set', 'a b', '1msg/s'],
      ['set', 'acme', 'many'],
      ['remove', '/x'],
    ]) {
      const { code, err } = await run(['quotas', ...wrong], { fake });
      assert.equal(code, 2, err);
    }
    assert.equal(fake.rules, 'x=1msg/s');
  });

  it('every command can be made for a tenant', async () => {
    const { connected } = await run(['publish', 's', 'x', '--tenant', 'acme']);
    assert.deepEqual(
      connected.map(({ tenant }) => tenant),
      ['acme'],
    );
    const { code, err } = await run(['publish', 's', 'x', '--tenant', 'a b']);
    assert.equal(code, 2);
    assert.match(err, /--tenant a b: must be 1 to 64 letters/);
  });
});

it('names are read as they are written', () => {
  assert.deepEqual(parseQuotaName('acme/a%2Cb'), { tenant: 'acme', prefix: 'a,b' });
  assert.equal(typeof parseQuotaName('a/'), 'string');
});
