/** Secrets: where they can come from, and that nothing shows them. */
import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { ConfigError, type ConfigInput, loadConfig } from '../../src/config/load.ts';
import { flagOf, variableOf } from '../../src/config/names.ts';
import { allKeys } from '../../src/config/schema.ts';
import { readSecretFile, SECRET_BYTES_MAX } from '../../src/config/secret-file.ts';
import { shownSetting } from '../../src/config/shown-setting.ts';
import { temporaryFolder } from '../support/temporary.ts';

/** A value that each secret takes, with something in it that must not be seen again. A new secret needs a line here. */
const PLANTED: Readonly<Record<string, { readonly value: string; readonly canary: string }>> = {
  'gossip.key': { value: 'Y2FuYXJ5LWdvc3NpcC1rZQ==', canary: 'Y2FuYXJ5LWdvc3NpcC1rZQ' },
  'postgres.url': { value: 'postgres://me:canary-Pg1@db:5432/x', canary: 'canary-Pg1' },
  'tracing.headers': { value: 'authorization=Bearer canary-Tr1', canary: 'canary-Tr1' },
  'cassandra.password': { value: 'canary-Ca1', canary: 'canary-Ca1' },
};
const SECRETS = allKeys().filter(({ field }) => field.isSecret === true);
const planted = (key: string) => PLANTED[key] ?? assert.fail(`${key} has no line in PLANTED`);
/** What the rules want beside a secret. */
const BESIDE = ['--gossip', '--cassandra-username=me', '--tracing-endpoint=http://127.0.0.1:4318'];

function load(input: Partial<ConfigInput> & { yaml?: string; files?: Readonly<Record<string, string>> }) {
  const { yaml, files = {}, ...rest } = input;
  return loadConfig({
    environment: {},
    machine: { cores: 4 },
    readFile: () => yaml ?? assert.fail('no file may be read'),
    readSecret: (path) => {
      if (!Object.hasOwn(files, path)) throw new Error('ENOENT');
      return files[path] as string;
    },
    isReadableByAll: () => false,
    ...rest,
    argv: [...(yaml === undefined ? [] : ['--config=b.yaml']), ...BESIDE, ...(input.argv ?? [])],
  });
}

function problemsOf(input: Parameters<typeof load>[0]): readonly string[] {
  try {
    load(input);
  } catch (error) {
    if (error instanceof ConfigError) return error.problems;
    throw error;
  }
  return assert.fail('the configuration was taken');
}

/** As `problemsOf`, without what is given beside. */
function problemsWithout({
  environment = {},
  yaml,
}: Pick<Parameters<typeof load>[0], 'environment' | 'yaml'>): readonly string[] {
  try {
    const argv = yaml === undefined ? [] : ['--config=b.yaml'];
    loadConfig({
      argv,
      environment,
      machine: { cores: 4 },
      readFile: () => yaml ?? assert.fail('no file may be read'),
    });
  } catch (error) {
    if (error instanceof ConfigError) return error.problems;
    throw error;
  }
  return assert.fail('the configuration was taken');
}

const nested = (key: string, value: string): string => {
  const [section, name] = key.split('.');
  return `${section}: { ${name}: "${value}" }`;
};

for (const { key, name } of SECRETS) {
  const { value, canary } = planted(key);
  const chosen = (loaded: ReturnType<typeof load>) => loaded.chosen.get(key)?.value;
  const row = (loaded: ReturnType<typeof load>) => loaded.rows.find((one) => one.key === key);

  test(`${key} is read from a file that a flag, a variable or the file names, and its origin is that name`, () => {
    const files = { '/run/s': value };
    for (const [input, source, place] of [
      [{ argv: [`${flagOf(name)}-file`, '/run/s'] }, 'flag', `${flagOf(name)}-file`],
      [{ environment: { [`${variableOf(name)}_FILE`]: '/run/s' } }, 'env', `${variableOf(name)}_FILE`],
      [{ yaml: nested(`${key}_file`, '/run/s') }, 'file', 'b.yaml:1'],
    ] as const) {
      const loaded = load({ ...input, files });
      assert.equal(chosen(loaded), value);
      assert.deepEqual(row(loaded)?.origin, { source, place });
      assert.doesNotMatch(JSON.stringify(loaded.rows), new RegExp(canary));
      assert.deepEqual(loaded.warnings, []);
      assert.ok(
        loaded.secrets.includes(value) &&
          loaded.secrets.some((secret) => canary.startsWith(secret) || secret.startsWith(canary)),
      );
    }
  });

  test(`${key}: between places the stronger one wins, with its file or without`, () => {
    const files = { '/run/s': value };
    const other = value.replace('canary', 'wholly').replace('Y2Fu', 'AAAA');
    const variable = { [variableOf(name)]: other };
    assert.equal(chosen(load({ argv: [`${flagOf(name)}-file=/run/s`], environment: variable, files })), value);
    assert.equal(chosen(load({ yaml: nested(`${key}_file`, '/run/s'), environment: variable, files })), other);
  });

  test(`${key} and its file in one place are refused, whichever of them is wrong`, () => {
    const files = { '/run/s': value };
    const environment = { [variableOf(name)]: value, [`${variableOf(name)}_FILE`]: '/run/s' };
    const yaml = `${nested(key, value).replace(' }', `, ${key.split('.')[1]}_file: /run/s }`)}`;
    for (const input of [
      { environment },
      { argv: [`${flagOf(name)}=${value}`, `${flagOf(name)}-file=/run/s`] },
      { yaml },
    ]) {
      const problems = problemsOf({ ...input, files });
      assert.equal(problems.length, 1, problems.join('\n'));
      assert.match(problems[0] as string, /only one of them may be given|already set at/);
      assert.doesNotMatch(problems.join(), new RegExp(canary));
    }
  });

  test(`an empty ${variableOf(name)}, or one of its file, is refused: nothing would be protected`, () => {
    for (const variable of [variableOf(name), `${variableOf(name)}_FILE`]) {
      const problems = problemsOf({ environment: { [variable]: '' } });
      assert.deepEqual(problems, [
        `${variable} "": a secret must not be empty; leave the variable out where there is none`,
      ]);
    }
  });

  test(`a file of ${key} that cannot be read is named, and a value that is refused is not shown`, () => {
    const [missing] = problemsOf({ environment: { [`${variableOf(name)}_FILE`]: '/nowhere' } });
    assert.equal(missing, `${key} (${variableOf(name)}_FILE "/nowhere"): cannot be read: ENOENT`);
    const wrong = `\n${canary}`;
    const problems = problemsOf({
      argv: [`${flagOf(name)}-file=/run/s`],
      files: { '/run/s': key === 'cassandra.password' ? '\n' : wrong },
    });
    assert.match(
      problems[0] as string,
      new RegExp(`^${key.replace('.', '\\.')} "\\*\\*\\*" \\(${flagOf(name)}-file\\): must be `),
    );
    assert.doesNotMatch(problems.join(), new RegExp(canary));
  });

  test(`${key} as a flag is taken with a warning that ps shows it`, () => {
    const { warnings } = load({ argv: [flagOf(name), value] });
    assert.equal(warnings.length, 1);
    assert.match(warnings[0] as string, new RegExp(`^${flagOf(name)}: .*\`ps\`.*${flagOf(name)}-file PATH`));
    assert.doesNotMatch(warnings.join(), new RegExp(canary));
  });

  for (const [what, input] of [
    ['flag', { argv: [`${flagOf(name)}x`, value] }],
    ['flag with =', { argv: [`${flagOf(name)}x=${value}`] }],
    ['flag with :', { argv: [`${flagOf(name)}:${value}`] }],
    ['stray argument', { argv: [value] }],
    ['variable', { environment: { [`${variableOf(name)}X`]: value } }],
    ['key of the file', { yaml: nested(`${key}x`, value) }],
    ['list in the file', { yaml: `${key}: ["${value}"]` }],
    ['alias in the file', { yaml: `${key}: *${canary}` }],
    ['block in the file', { yaml: `${key}: |${canary}` }],
    ['twice', { argv: [`${flagOf(name)}=${value}`, `${flagOf(name)}=${value}`] }],
  ] as const) {
    test(`${key} under a wrong name or form is not shown: ${what}`, () => {
      const problems = problemsOf(input);
      assert.ok(problems.length > 0);
      assert.doesNotMatch(problems.join('\n'), new RegExp(canary));
    });
  }
}

test('a URL without a password is shown as it is, and may be a flag', () => {
  const { rows, warnings, secrets } = load({ argv: ['--postgres-url=postgres://me@db/x'] });
  assert.equal(rows.find(({ key }) => key === 'postgres.url')?.value, 'postgres://me@db/x');
  assert.deepEqual([warnings, secrets], [[], []]);
});

test('a file of a secret, or a configuration with one, that everybody can read is taken with a warning', () => {
  const isReadableByAll = (): boolean => true;
  const files = { '/run/s': 'canary-Ca1' };
  const byFile = load({ environment: { BROKER_CASSANDRA_PASSWORD_FILE: '/run/s' }, files, isReadableByAll });
  assert.deepEqual(byFile.warnings, [
    'BROKER_CASSANDRA_PASSWORD_FILE "/run/s": every user of the machine can read the file; chmod 600 it',
  ]);
  const inFile = load({ yaml: 'cassandra: { password: canary-Ca1 }', isReadableByAll });
  assert.deepEqual(inFile.warnings, [
    'config file "b.yaml": every user of the machine can read it, and cassandra.password is in it; chmod 600 it',
  ]);
  assert.deepEqual(load({ yaml: 'shards: 1', isReadableByAll }).warnings, []);
});

test('a secret is its file without the line break at its end', (t) => {
  const path = join(temporaryFolder(t), 'secret');
  for (const [content, secret] of [
    ['abc', 'abc'],
    ['abc\n', 'abc'],
    ['abc\r\n', 'abc'],
    [' abc \n\n', ' abc \n'],
    ['ä'.repeat(100), 'ä'.repeat(100)],
    ['x'.repeat(SECRET_BYTES_MAX), 'x'.repeat(SECRET_BYTES_MAX)],
  ] as const) {
    writeFileSync(path, content);
    assert.equal(readSecretFile(path), secret);
  }
});

test('what cannot be a secret is refused without showing it: nothing, too much, a folder', (t) => {
  const folder = temporaryFolder(t);
  const path = join(folder, 'secret');
  for (const [content, why] of [
    ['', /it is empty/],
    ['\n', /it is empty/],
    ['x'.repeat(SECRET_BYTES_MAX + 1), /larger than 65536 bytes/],
  ] as const) {
    writeFileSync(path, content);
    assert.throws(() => readSecretFile(path), why);
  }
  mkdirSync(join(folder, 'd'));
  assert.throws(() => readSecretFile(join(folder, 'd')), /EISDIR/);
});

test('real files: read, and warned of by their mode', (t) => {
  const folder = temporaryFolder(t);
  const [secret, config] = [join(folder, 'password'), join(folder, 'broker.yaml')];
  writeFileSync(secret, 'canary-Ca1\n');
  writeFileSync(config, `cassandra: { username: me, password_file: ${secret} }\n`);
  const warnings = (mode: number): readonly string[] => {
    chmodSync(secret, mode);
    const loaded = loadConfig({ argv: ['--config', config], environment: {} });
    assert.equal(loaded.config.cassandra.password, 'canary-Ca1');
    return loaded.warnings;
  };
  assert.match(warnings(0o644).join(), /password": every user of the machine can read the file/);
  assert.deepEqual(warnings(0o640), []);
});

test('a password or a key inside of a URL that may have none is refused without showing it', () => {
  for (const [url, shown] of [
    ['http://me:canary-Ur1@h:4318/v1', 'http://***@h:4318/v1'],
    ['http://me:canary/Ur1@h:4318/v1', 'http://***@h:4318/v1'],
    ['http://h:4318/v1?key=canary-Ur1', 'http://h:4318/v1?***'],
    ['http://me:canary@h/?key=canary@Ur1', 'http://***@Ur1'],
  ] as const) {
    const environment = { BROKER_TRACING_ENDPOINT: url };
    for (const input of [{ environment }, { yaml: nested('tracing.endpoint', url) }]) {
      const problems = problemsWithout(input);
      assert.match(problems.join(), /must be a URL such as/);
      assert.ok(problems.join().includes(`"${shown}"`), problems.join());
      assert.doesNotMatch(problems.join(), /canary/);
    }
  }
  assert.ok(
    problemsOf({ argv: ['--tracing-ratio=2'] })
      .join()
      .includes('"2"'),
    'what is no URL is shown',
  );
});

for (const { key, name } of SECRETS) {
  test(`a change of ${key} is written down without it, also under a wrong name, in the wrong place, or cut off`, () => {
    const { value, canary } = planted(key);
    const tries = [key, name, `${key}_file`, `${key}s`, 'log.level', 'data_dir', value].map((said) => [said, value]);
    for (const [said = '', given = ''] of [...tries, [key, value.slice(1)], [value, key], ['store.kind', value]]) {
      // A folder may have any name.
      if (said === 'data_dir' && !value.includes('://')) continue;
      const shown = JSON.stringify(shownSetting(said, given));
      assert.equal(shown.includes(canary), false, `${said}: ${shown}`);
    }
  });
}

test('a change of what is no secret is written down as it is, and a value that its key does not take is not', () => {
  assert.deepEqual(shownSetting('log.level', 'debug'), { key: 'log.level', value: 'debug' });
  assert.deepEqual(shownSetting('shards', '4'), { key: 'shards', value: '4' });
  assert.deepEqual(shownSetting('log.level', 'hunter2'), { key: 'log.level', value: '***' });
  assert.deepEqual(shownSetting('log.levle', 'debug'), { key: 'log.levle', value: '***' });
  assert.deepEqual(shownSetting('dG9rZW4tb2Ytc29tZWJvZHk', 'log.level'), { key: '***', value: '***' });
});
