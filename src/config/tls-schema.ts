/** The keys of TLS on the ports of this node. A part of `SCHEMA`. */

import { CLIENT_CERTIFICATES, type ClientCertificates, TLS_VERSIONS } from '../tls/contexts.ts';
import { boolean, choice, type Field, optionalText } from './field.ts';

const file = (options: { readonly unset: string; readonly doc: string }): Field<string | null> =>
  optionalText({ pattern: /^[^\0]+$/, rule: 'the path of a file', isFile: true, live: true, ...options });

/** A field whose default hangs on other keys. */
function unlessGiven<T>(field: Field<T>, unset: string): Field<T | null> {
  const { format, schema } = field;
  return {
    ...field,
    schema: schema as unknown as Field<T | null>['schema'],
    default: null,
    defaultText: unset,
    format: (value) => (value === null ? `(${unset})` : format(value)),
  };
}

export const PEERS_TLS = ['off', 'optional', 'required'] as const;

export const TLS = {
  cert: file({
    unset: 'no TLS',
    doc: 'Certificate of this node (PEM): its own first, then those between it and its authority. With it the gRPC port speaks TLS and nothing else. Files are looked at every two seconds, and read again when they have changed or at SIGHUP; connections that are open stay.',
  }),
  key: file({
    unset: 'no TLS',
    doc: 'Private key (PEM, without a passphrase) of `tls.cert`. Only the broker should be able to read it.',
  }),
  ca: file({
    unset: 'none',
    doc: 'Authorities (PEM) whose certificates of clients and of other nodes are taken. Nothing else is: the authorities that Node knows are not asked. A node with peers needs it beside `tls.cert`. To change the authority put the new one beside the old one, change the certificates, then take the old one out.',
  }),
  client_certs: unlessGiven<ClientCertificates>(
    choice({
      values: CLIENT_CERTIFICATES,
      default: 'off',
      doc: 'Certificates of clients on the gRPC port. `optional`: who shows one is who it says, and a bad one is refused; `required`: nobody connects without. Without access.file everybody who has one may do everything, also administrate.',
    }),
    '`optional` with tls.ca, else `off`',
  ),
  peers: unlessGiven<(typeof PEERS_TLS)[number]>(
    choice({
      values: PEERS_TLS,
      default: 'off',
      doc: 'TLS between nodes, on the Raft port and for calls from node to node: 1.3 alone on the Raft port, and each shows a certificate that names it (`broker://CLUSTER/node/NODE`). `off`: clear text, which a gRPC port with `tls.cert` does not take, so that other nodes reach it only where something in front of it turns clear text into TLS. `optional` is for the time of a change: this node takes clear text beside TLS on its Raft and gRPC ports, and speaks it with nodes that know nothing else. docs/security.md says how to turn it on without a stop.',
    }),
    '`required` with tls.cert and tls.ca, else `off`',
  ),
  min_version: choice({
    values: TLS_VERSIONS,
    default: 'TLSv1.2',
    doc: 'Oldest version of TLS. Of 1.2 only suites with forward secrecy and authenticated encryption are spoken (ECDHE with AES-GCM or ChaCha20-Poly1305). Turn it up to `TLSv1.3` if nothing older has to connect; Envoy speaks 1.2 to its upstreams unless told otherwise.',
  }),
};

export const ADMIN_TLS = unlessGiven(
  boolean({
    default: false,
    doc: 'Whether the admin port speaks HTTPS, with the certificate of `tls.cert`. Clients are not asked for certificates there. Turn it off if probes and scrapers reach the port on a way that is safe by itself.',
  }),
  'true with tls.cert, else false',
);
