/** Who calls by a client certificate: which of its names count, and when it is refused for having too many. */
import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { ServerHttp2Stream } from 'node:http2';
import { it } from 'node:test';
import { Policy } from '../../src/access/policy.ts';
import { parseAccessFile } from '../../src/config/access-file.ts';
import { AccessCallers } from '../../src/grpc/access/access-callers.ts';
import { CertificateAuthority } from '../support/certificates.ts';
import { temporaryFolder } from '../support/temporary.ts';
import { requireTool } from '../support/tools.ts';

const FILE = `
certificates:
  - {name: ops, observe: true}
  - {name: guest}
  - {name: "broker://other/client/ops"}
  - {name: "broker://broker/client/shown-as-a-whole"}
  - {name: "spiffe://house/ops"}
  - {name: "spiffe://house/guest"}
  - {name: "broker:///client/ops"}
`;
const ANONYMOUS = 'anonymous: {}\n';

/** Names of the certificate, who that is, and what the log says if it is nobody. */
const CASES: readonly (readonly [names: string, who: string, detail?: RegExp])[] = [
  ['URI:broker://broker/client/ops', 'certificate ops'],
  ['DNS:a, URI:broker://broker/client/ops, URI:https://a/b', 'certificate ops'],
  ['URI:broker://other/client/ops', 'certificate broker://other/client/ops'],
  ['URI:broker://broker/client/shown-as-a-whole', 'certificate broker://broker/client/shown-as-a-whole'],
  ['URI:spiffe://house/ops', 'certificate spiffe://house/ops'],
  ['URI:https://a/b, URI:spiffe://house/ops', 'certificate spiffe://house/ops'],
  ['URI:broker://broker/client/nobody', 'CREDENTIALS_INVALID', /no entry/],
  ['URI:broker://other/client/guest', 'CREDENTIALS_INVALID', /no entry/],
  // A name of this cluster without what says that it is of this cluster.
  ['URI:ops', 'CREDENTIALS_MISSING'],
  ['URI:broker://other/client/x, URI:ops', 'CREDENTIALS_INVALID', /no entry/],
  ['URI:/ops', 'CREDENTIALS_MISSING'],
  ['DNS:ops', 'CREDENTIALS_MISSING'],
  // Two of ours, whichever is known.
  ['URI:broker://broker/client/ops, URI:broker://broker/client/guest', 'CREDENTIALS_INVALID', /two names/],
  ['URI:broker://broker/client/nobody, URI:broker://other/client/ops', 'CREDENTIALS_INVALID', /two names/],
  ['URI:broker://broker/client/ops, URI:broker://broker/node/n', 'CREDENTIALS_INVALID', /two names/],
  ['URI:broker://broker/client/ops, URI:BROKER://broker/client/x', 'CREDENTIALS_INVALID', /two names/],
  // Two that the file knows.
  ['URI:spiffe://house/guest, URI:spiffe://house/ops', 'CREDENTIALS_INVALID', /two entries/],
  ['URI:broker://broker/client/guest, URI:spiffe://house/ops', 'CREDENTIALS_INVALID', /two entries/],
  // Ours by its scheme, and none of the two kinds.
  ['URI:broker:///client/ops', 'CREDENTIALS_INVALID', /broker:\/\/CLUSTER\/client\/NAME/],
  ['URI:Broker://broker/client/ops', 'CREDENTIALS_INVALID', /broker:\/\/CLUSTER\/client\/NAME/],
  ['URI:broker:ops, URI:spiffe://house/ops', 'CREDENTIALS_INVALID', /broker:\/\/CLUSTER\/client\/NAME/],
  ['URI:broker://broker/node/ops, URI:spiffe://house/ops', 'CREDENTIALS_MISSING'],
];

function make(text: string) {
  const parsed = parseAccessFile(text, 'a.yaml', () => '');
  assert.ok('document' in parsed, 'problems' in parsed ? parsed.problems.join() : '');
  const details: string[] = [];
  const notes = {
    refused: ({ detail }: { readonly detail: string }): void => void details.push(detail),
    denied: (): void => undefined,
  };
  const spaceOf = (): Uint8Array => new Uint8Array(0);
  const policy = new Policy(parsed.document);
  const callers = new AccessCallers({ policy, cluster: 'broker', notes, spaceOf, now: () => 0 });
  const by = (certificate: X509Certificate): string => {
    const socket = { authorized: true, getPeerX509Certificate: () => certificate };
    const stream = { session: { encrypted: true, socket } } as unknown as ServerHttp2Stream;
    const found = callers.of(stream, { ':path': '/broker.Broker/Publish' });
    assert.ok(!(found instanceof Promise));
    return typeof found === 'string' ? found : found.name;
  };
  return { by, details };
}

it(`${CASES.length} certificates are of whom their one name says, and those with two are of nobody`, (t) => {
  if (!requireTool(t, 'openssl')) return;
  const authority = new CertificateAuthority(temporaryFolder(t), 'ca');
  for (const [i, [names, who, detail]] of CASES.entries()) {
    const { cert } = authority.issue(`c${i}`, names);
    const certificate = new X509Certificate(readFileSync(cert));
    const strict = make(FILE);
    assert.equal(strict.by(certificate), who, names);
    if (detail !== undefined) assert.match(strict.details[0] ?? '', detail, names);
    // Who shows a certificate that is refused is not taken for somebody who has shown none.
    const open = make(FILE + ANONYMOUS);
    const isRefused = detail !== undefined && !/no entry/.test(detail.source);
    if (isRefused) assert.equal(open.by(certificate), 'CREDENTIALS_INVALID', `${names}, beside anonymous callers`);
  }
});
