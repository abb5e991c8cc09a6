import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Policy } from '../../src/access/policy.ts';
import { parseAccessFile } from '../../src/config/access-file.ts';
import {
  joinsNeedProof,
  type OpenListener,
  openListeners,
  refuseStrangers,
  strangersOf,
} from '../../src/config/listener-rules.ts';
import { ConfigError, loadConfig } from '../../src/config/load.ts';

const TLS = ['--tls-cert=c', '--tls-key=k'];
const MTLS = [...TLS, '--tls-ca=a'];
const ASKED = [...MTLS, '--tls-client-certs=required'];
const ACCESS = ['--access-file=access.yaml'];
const PEERS = ['--store=postgres', '--postgres-url=postgres://db/x', '--bootstrap'];
/** Nodes that have no authority to know one another by. */
const LONE = [...PEERS, ...TLS, '--tls-peers=off'];
const GRPC = ['--grpc-listen=10.0.0.1:8081'];
const ADMIN = ['--admin-listen=10.0.0.1:8000'];
const RAFT = [...PEERS, '--raft-listen=10.0.0.1:12000'];
const GOSSIP = ['--gossip', '--gossip-listen=10.0.0.1:7946'];
const KEY = ['--gossip-key=MDEyMzQ1Njc4OWFiY2RlZg=='];

/** What is set, and which listeners are open to strangers then. */
const TABLE: readonly (readonly [string, readonly string[], readonly OpenListener['key'][]])[] = [
  ['nothing', [], []],
  ['gRPC in clear text', GRPC, ['grpc.listen']],
  ['gRPC with TLS alone', [...GRPC, ...TLS], ['grpc.listen']],
  ['gRPC with authorities, of whom nobody needs a certificate', [...GRPC, ...MTLS], ['grpc.listen']],
  ['gRPC with an access file, in clear text', [...GRPC, ...ACCESS], ['grpc.listen']],
  ['gRPC with certificates of clients', [...GRPC, ...ASKED], []],
  ['gRPC with TLS and an access file', [...GRPC, ...TLS, ...ACCESS], []],
  ['gRPC of a cluster whose nodes show nothing', [...LONE, ...GRPC, ...ACCESS], ['grpc.listen']],
  [
    'gRPC of such a cluster with certificates of clients',
    [...PEERS, ...GRPC, ...ASKED, '--tls-peers=off'],
    ['grpc.listen'],
  ],
  ['gRPC of a cluster whose nodes have certificates', [...PEERS, ...GRPC, ...MTLS, ...ACCESS], []],
  ['gRPC of a cluster whose nodes share a key', [...LONE, ...GRPC, ...ACCESS, ...KEY], []],
  ['gRPC on its way to TLS', [...GRPC, ...ASKED, '--tls-peers=optional'], ['grpc.listen']],
  ['admin in clear text', ADMIN, ['admin.listen']],
  ['admin with an access file, in clear text', [...ADMIN, ...ACCESS], ['admin.listen']],
  ['admin with TLS alone', [...ADMIN, ...TLS], ['admin.listen']],
  ['admin, which asks nobody for a certificate', [...ADMIN, ...ASKED], ['admin.listen']],
  ['admin with TLS and an access file', [...ADMIN, ...TLS, ...ACCESS], []],
  ['admin with TLS turned off', [...ADMIN, ...TLS, ...ACCESS, '--admin-tls=false'], ['admin.listen']],
  ['Raft in clear text', RAFT, ['raft.listen']],
  ['Raft with a certificate and no authority', [...RAFT, ...TLS, '--tls-peers=off'], ['raft.listen']],
  ['Raft with TLS', [...RAFT, ...MTLS], []],
  ['Raft with TLS turned off', [...RAFT, ...MTLS, '--tls-peers=off'], ['raft.listen']],
  ['Raft on its way to TLS', [...RAFT, ...MTLS, '--tls-peers=optional'], ['raft.listen']],
  ['Raft of a node without peers', ['--raft-listen=10.0.0.1:12000'], []],
  ['gossip without a key', GOSSIP, ['gossip.listen']],
  ['gossip with TLS and no key', [...GOSSIP, ...ASKED], ['gossip.listen']],
  ['gossip with a key', [...GOSSIP, ...KEY], []],
  ['gossip that does not run', ['--gossip-listen=10.0.0.1:7946'], []],
  [
    'all at once',
    [...GRPC, ...ADMIN, ...RAFT, ...GOSSIP],
    ['grpc.listen', 'admin.listen', 'raft.listen', 'gossip.listen'],
  ],
];

for (const [what, argv, open] of TABLE) {
  test(`${what}: ${open.length === 0 ? 'safe' : `${open.join(', ')} open to strangers`}`, () => {
    const { config } = loadConfig({ argv: [...argv, '--insecure'], environment: {} });
    assert.deepEqual(
      openListeners(config).map(({ key }) => key),
      open,
    );
    const load = (): unknown => loadConfig({ argv, environment: {} });
    if (open.length === 0) load();
    else {
      assert.throws(load, (error: unknown) => {
        assert.ok(error instanceof ConfigError);
        // One line that names all of them.
        assert.equal(error.problems.length, 1);
        for (const key of open) assert.ok(error.problems[0]?.includes(`${key} 10.0.0.1:`), error.problems[0]);
        return true;
      });
    }
  });
}

test('every address of this machine alone is loopback, and every interface is not', () => {
  const open = (listen: string): number => {
    const { config } = loadConfig({ argv: ['--insecure', `--grpc-listen=${listen}`], environment: {} });
    return openListeners(config).length;
  };
  for (const listen of ['127.0.0.1:1', '127.255.0.9:1', '[::1]:1', 'localhost:1'])
    assert.equal(open(listen), 0, listen);
  for (const listen of [
    '0.0.0.0:1',
    '[::]:1',
    '[::ffff:10.0.0.1]:1',
    '10.0.0.1:1',
    '[fe80::1]:1',
    'host:1',
    '126.0.0.1:1',
  ]) {
    assert.equal(open(listen), 1, listen);
  }
});

test('it is said what nodes of a cluster can show', () => {
  const argv = [...LONE, ...GRPC, ...ACCESS];
  assert.throws(
    () => loadConfig({ argv, environment: {} }),
    /grpc\.listen 10\.0\.0\.1:8081 \(set tls\.ca.*gossip\.key/,
  );
});

/** What is set, and whether a node that wants to be taken in has to show what it is. */
const JOINS: readonly (readonly [string, readonly string[], boolean])[] = [
  ['on this machine alone', [...PEERS, ...ACCESS], false],
  ['without an access file', [...PEERS, ...GRPC], false],
  ['with an access file', [...PEERS, ...GRPC, ...ACCESS], true],
  ['with an access file, where Raft alone is elsewhere', [...RAFT, ...ACCESS], true],
];

for (const [what, argv, isAsked] of JOINS) {
  test(`a node that joins is ${isAsked ? '' : 'not '}asked for proof ${what}`, () => {
    const { config } = loadConfig({ argv: [...argv, '--insecure'], environment: {} });
    assert.equal(joinsNeedProof(config), isAsked);
  });
}

/** What `anonymous` of the access file has, and which of gRPC and admin are open to strangers then. */
const ANONYMOUS: readonly (readonly [string, readonly string[], string])[] = [
  ['{}', [], ''],
  ['{deny: {publish: [">"]}}', [], ''],
  ['{roles: [none]}', [], ''],
  ['{roles: [reader]}', [], 'grpc.listen'],
  ['{allow: {publish: [a.b]}}', [], 'grpc.listen'],
  ['{allow: {fetch: [">"]}, deny: {fetch: [">"]}}', [], 'grpc.listen'],
  ['{observe: true}', [], 'grpc.listen admin.listen'],
  ['{admin: true}', [], 'grpc.listen admin.listen'],
  // Then nobody comes without a certificate, but to the admin port.
  ['{observe: true}', ['--tls-ca=a', '--tls-client-certs=required'], 'admin.listen'],
];

for (const [anonymous, more, open] of ANONYMOUS) {
  test(`anonymous ${anonymous} ${more.join(' ')} is ${open === '' ? 'no open door' : `an open door at ${open}`}`, () => {
    const text = `roles: {none: {}, reader: {allow: {subscribe: [x]}}}\nanonymous: ${anonymous}\n`;
    const parsed = parseAccessFile(text, 'access.yaml', () => '');
    assert.ok('document' in parsed);
    const policy = new Policy(parsed.document);
    const argv = [...GRPC, ...ADMIN, ...TLS, ...ACCESS, ...more];
    const { config } = loadConfig({ argv, environment: {} });
    const found = openListeners(config, { strangers: strangersOf(policy) });
    assert.equal(found.map(({ key }) => key).join(' '), open);
    if (open === '') refuseStrangers(config, policy);
    else assert.throws(() => refuseStrangers(config, policy), /anonymous.*insecure.*10\.0\.0\.1/);
    refuseStrangers({ ...config, insecure: true }, policy);
    const local = loadConfig({ argv: ACCESS, environment: {} });
    refuseStrangers(local.config, policy);
  });
}

test('a node whose data directory says that it has peers is judged with its Raft port', () => {
  const { config } = loadConfig({ argv: ['--raft-listen=0.0.0.0:12000'], environment: {} });
  assert.deepEqual(openListeners(config), []);
  assert.deepEqual(
    openListeners(config, { isClustered: true }).map(({ key }) => key),
    ['raft.listen'],
  );
});

test('without a gossip key it is said how to make one', () => {
  assert.throws(() => loadConfig({ argv: GOSSIP, environment: {} }), /gossip\.key.*openssl rand -base64 32/);
});
