import { ByteWriter } from '../../../base/bytes.ts';
import { type FieldNames, readFields, refusalOf } from './fields.ts';
import { lzwDecode, lzwEncode } from './lzw.ts';
import { MESSAGE_TYPE } from './message-type.ts';
import { MsgpackReader, MsgpackWriter } from './msgpack.ts';
import type { WireRefusal } from './refusal.ts';

const COMPRESS: FieldNames = new Set(['Algo', 'Buf']);
/** The only algorithm that there is. */
const LZW = 0;

/** A `compress` message with the messages `bytes` in it, or `bytes` if that is not smaller. */
export function compressed(bytes: Uint8Array): Uint8Array {
  const out = new ByteWriter(bytes.length);
  out.uint8(MESSAGE_TYPE.compress);
  const message = new MsgpackWriter(out)
    .map(2)
    .string('Algo')
    .uint(LZW)
    .string('Buf')
    .bytes(lzwEncode(bytes))
    .toBytes();
  return message.length < bytes.length ? message : bytes;
}

/** What is in the struct of a `compress` message, at most `bytesMax` bytes; never empty. */
export function decompressed(struct: Uint8Array, bytesMax: number): Uint8Array | WireRefusal {
  const reader = new MsgpackReader(struct);
  const { Algo, Buf } = readFields(reader, COMPRESS);
  const refusal = refusalOf(reader);
  if (refusal !== null) return refusal;
  if (Algo !== LZW) return 'compression';
  const plain = lzwDecode(Buf, bytesMax);
  if (plain === 'tooLarge') return 'tooLarge';
  if (plain === 'malformed') return 'compression';
  return plain.length === 0 ? 'empty' : plain;
}
