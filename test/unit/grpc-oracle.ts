/** The public service as protobufjs reads it: the second opinion on every byte that the hand-written codec reads or writes. */
import { join } from 'node:path';
import protobuf from 'protobufjs';
import { ROOT } from '../support/source-tree.ts';

const FILES = [
  'broker.proto',
  'broker/v1/record.proto',
  'broker/v1/producer.proto',
  'broker/v1/consumer.proto',
  'google/rpc/error_details.proto',
  'google/rpc/status.proto',
];

/** As protobufjs takes it: absent fields are absent, int64 as decimal text. */
export type Fields = Record<string, unknown>;

export interface Oracle {
  encode(fields: Fields): Buffer;
  /** With defaults for what is absent, int64 as decimal text. Throws on malformed bytes. */
  decode(bytes: Uint8Array): Fields;
}

/** `stringsAsBytes`: strings come back as they are on the wire, so that malformed UTF-8 can be compared too. */
export function loadOracle(name: string, options: { readonly stringsAsBytes?: boolean } = {}): Oracle {
  const loaded = new protobuf.Root();
  loaded.resolvePath = (_origin, target) => join(ROOT, 'proto', target);
  loaded.loadSync(FILES, { keepCase: true });
  const schema = JSON.stringify(loaded.toJSON());
  const root = protobuf.Root.fromJSON(
    JSON.parse(options.stringsAsBytes === true ? schema.replaceAll('"type":"string"', '"type":"bytes"') : schema),
  );
  const type = root.lookupType(name);
  return {
    encode: (fields) => Buffer.from(type.encode(type.fromObject(fields)).finish()),
    decode: (bytes) =>
      type.toObject(type.decode(bytes), { longs: String, defaults: true, arrays: true, bytes: Buffer }),
  };
}
