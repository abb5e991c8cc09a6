/** docs/configuration.schema.json: what editors are told agrees with what the broker takes. */
import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { parse, stringify } from 'yaml';
import { loadConfig } from '../../src/config/load.ts';
import { flagOf, variableOf } from '../../src/config/names.ts';
import { allKeys, type Key } from '../../src/config/schema.ts';
import { fileNameOf } from '../../src/config/sources.ts';
import { ROOT } from '../support/source-tree.ts';

const read = (path: string): string => readFileSync(join(ROOT, path), 'utf8');
const SCHEMA = JSON.parse(read('docs/configuration.schema.json')) as { readonly $schema: string };
const validate = new Ajv2020({ allErrors: true, allowUnionTypes: true }).compile(SCHEMA);

function errorsOf(value: unknown): string[] {
  validate(value);
  return (validate.errors ?? []).map(({ instancePath, message }) => `${instancePath} ${message}`);
}

const isTaken = (yaml: string): boolean => {
  try {
    loadConfig({
      argv: ['--config=b'],
      environment: {},
      machine: { cores: 4 },
      readFile: () => yaml,
      readSecret: () => 'x',
    });
    return true;
  } catch {
    return false;
  }
};

/** `a.b` as a document that is nested. */
function nested(name: string, value: unknown): object {
  return name.split('.').reduceRight<unknown>((inner, part) => ({ [part]: inner }), value) as object;
}

for (const path of globSync('examples/**/*.{yaml,yml}', { cwd: ROOT })) {
  test(`${path} fits the schema, and says which it is`, () => {
    assert.deepEqual(errorsOf(parse(read(path))), []);
    const [, schema] = /^# yaml-language-server: \$schema=(\S+)$/m.exec(read(path)) ?? [];
    assert.equal(join(path, '..', schema ?? ''), 'docs/configuration.schema.json');
    const files = { readFile: () => read(path), isReadableByAll: () => false };
    const readSecret = (file: string): string =>
      file.includes('postgres') ? 'postgres://me:pw@db/x' : `${'A'.repeat(43)}=`;
    const { warnings } = loadConfig({ argv: ['--config=b'], environment: {}, ...files, readSecret });
    assert.deepEqual(warnings, []);
  });
}

test('the files that documents show fit the schema', () => {
  const shown = globSync('docs/*.md', { cwd: ROOT }).flatMap((path) =>
    [...read(path).matchAll(/```yaml\n# yaml-language-server[^\n]*\n([\s\S]*?)```/g)].map(([, yaml]) => yaml ?? ''),
  );
  assert.ok(shown.length > 0, 'nothing was compared');
  for (const yaml of shown) assert.deepEqual(errorsOf(parse(yaml)), [], yaml);
});

/** Variables of the files for containers: k8s (literals of its config maps, environment of pods), Compose, the image. */
function deployed(): readonly (readonly [string, string])[] {
  const paths = [...globSync('k8s/**/*.yaml', { cwd: ROOT }), 'docker-compose.yml', 'Dockerfile'];
  return paths.flatMap((path) => {
    const text = read(path);
    const assigned = [...text.matchAll(/(BROKER_[A-Z_]+)=([^\s\\]+)/g)];
    const mapped = [...text.matchAll(/^ +(BROKER_[A-Z_]+): (.+)$/gm)];
    const pods = [...text.matchAll(/name: (BROKER_[A-Z_]+)\n +value: (.+)$/gm)];
    return [...assigned, ...mapped, ...pods].map(([, name = '', value = '']) => [name, value] as const);
  });
}

test('what k8s/, the compose file and the image set fits the schema', () => {
  const byVariable = new Map(allKeys().map((key) => [variableOf(key.name), key] as const));
  const filled = (value: string): string =>
    value
      .replace(/\$\{\w+:-([^}]*)\}/g, '$1')
      .replace(/\$\{[^}]*\}|\$\([A-Z_]+\)/g, 'x')
      .replaceAll('"', '');
  const found = deployed().filter(([name]) => byVariable.has(name));
  assert.ok(found.length > 30, `only ${found.length} were found`);
  for (const [name, value] of found) {
    const key = byVariable.get(name) as Key;
    assert.deepEqual(errorsOf(nested(key.name, filled(value))), [], `${name}=${value}`);
  }
});

test('each key is described, with its default and what it may be, under both of its names', () => {
  for (const { key, name, field } of allKeys()) {
    for (const spelt of [key, name]) assert.deepEqual(errorsOf(nested(spelt, sampleOf(key))), [], spelt);
    if (field.isSecret === true) assert.deepEqual(errorsOf(nested(fileNameOf(key), '/run/secret')), []);
    assert.ok(JSON.stringify(SCHEMA).includes(JSON.stringify(field.doc.slice(0, 60)).slice(1, -1)), key);
  }
  assert.deepEqual(errorsOf({ shrads: 1 }), [' must NOT have additional properties']);
  assert.deepEqual(errorsOf({ limits: { body: 1 } }), ['/limits must NOT have additional properties']);
});

/** Something that each key takes. */
function sampleOf(key: string): string | number | boolean {
  const row = loadConfig({ argv: [], environment: {}, machine: { cores: 4 } }).rows.find((one) => one.key === key);
  const samples: Readonly<Record<string, string>> = {
    'postgres.url': 'postgres://me:pw@db/x',
    'cassandra.contact_points': 'c1,c2',
    'cassandra.tls_name': 'db',
    'gossip.key': 'MDEyMzQ1Njc4OWFiY2RlZg==',
    'discovery.dns_name': 'brokers',
    'tracing.endpoint': 'http://127.0.0.1:4318',
    'tracing.headers': 'authorization=Bearer abc',
    'discovery.dns_servers': '10.0.0.53',
    'admin.tls': 'true',
    'tls.client_certs': 'required',
    'tls.peers': 'required',
  };
  if (samples[key] !== undefined) return samples[key];
  if (row === undefined) return assert.fail(key);
  if (!row.value.startsWith('(')) return row.value;
  return /advertise|join/.test(key) ? '10.0.0.1:7000' : 'some-name';
}

const VALUES: readonly unknown[] = [
  ...[true, false, 'true', 'yes', 0, 1, 2, 3, 4, 1.5, -1, 64, 65, 4096, 1e12, '0', '1', '8', '65', '007'],
  ...[
    '5s',
    '5 s',
    '250ms',
    '1.5h',
    '5',
    '64KiB',
    '1MiB',
    '1MB',
    '0B',
    'info',
    'embedded',
    'a:1',
    'a',
    'a:1,b:2',
    'a:1, b:2',
  ],
  ...[
    '0.0.0.0:8081',
    '[::1]:8081',
    '::1:80',
    '127.0.0.1:99999',
    ['a:1'],
    ['a:1', 'b:2'],
    ['a'],
    [],
    [1],
    {},
    null,
    '',
    'x y',
  ],
  ...[
    'postgres://me@db/x',
    'mysql://db',
    'MDEyMzQ1Njc4OWFiY2RlZg==',
    "{'class': 'SimpleStrategy', 'replication_factor': 3}",
  ],
];

test('what the broker takes fits the schema, for every key and many values', () => {
  let taken = 0;
  for (const { key } of allKeys()) {
    for (const value of VALUES) {
      const yaml = stringify(nested(key, value));
      // The rules between keys are not the schema's: what they refuse is skipped with what the key refuses.
      if (!isTaken(yaml)) continue;
      taken += 1;
      assert.deepEqual(errorsOf(parse(yaml)), [], yaml);
    }
  }
  assert.ok(taken > 300, `only ${taken} were taken`);
});

test('what is wrong by itself is marked by the schema: type, unit, range, choice, form', () => {
  for (const [key, value] of [
    ['shards.count', 0],
    ['shards.count', 65],
    ['shards.count', 1.5],
    ['raft.voters', 2],
    ['limits.body_bytes', '1MB'],
    ['limits.body_bytes', 1],
    ['batch.linger', 5],
    ['batch.linger', '5 s'],
    ['accept_clock', 'yes'],
    ['log.level', 'wran'],
    ['grpc.listen', '8081'],
    ['grpc.advertise', 'a'],
    ['gossip.join', ['a b']],
    ['gossip.join', []],
    ['postgres.url', 'mysql://db'],
    ['gossip.key', 'short'],
    ['gossip.key_file', ''],
    ['node_id', '-a'],
    ['data_dir', ['a']],
  ] as const) {
    const yaml = stringify(nested(key, value));
    assert.ok(!isTaken(yaml), `${flagOf(key)} takes ${value}`);
    assert.ok(errorsOf(parse(yaml)).length > 0, yaml);
  }
});
