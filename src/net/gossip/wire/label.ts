import { assert } from '../../../base/assert.ts';
import { FIELD_CAPS } from './limits.ts';
import { MESSAGE_TYPE } from './message-type.ts';

/**
 * Label of a cluster (memberlist label.go): [244] [length: 1] [label], in front of every packet and of what the opener of a stream writes. Clusters that are
 * found by one another by mistake keep apart by it; with keys it is bound to what is encrypted too.
 */
export function labelHeader(label: string): Uint8Array {
  const bytes = Buffer.from(label);
  assert(bytes.length <= FIELD_CAPS.labelBytesMax, () => `a label of ${bytes.length} bytes`);
  return bytes.length === 0 ? bytes : Buffer.concat([Uint8Array.of(MESSAGE_TYPE.hasLabel, bytes.length), bytes]);
}

/** The label in a header, as bytes: what encryption is bound to. */
export function labelOf(header: Uint8Array): Uint8Array {
  return header.subarray(2);
}

/** Whether `bytes` start with this header; if it is empty, whether they start with none. */
export function hasLabel(bytes: Uint8Array, header: Uint8Array): boolean {
  if (header.length === 0) return bytes[0] !== MESSAGE_TYPE.hasLabel;
  return bytes.length >= header.length && Buffer.compare(bytes.subarray(0, header.length), header) === 0;
}
