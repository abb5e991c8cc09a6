import { unreachable } from '../../../base/assert.ts';
import { ByteWriter } from '../../../base/bytes.ts';
import type { StreamMessage } from '../../../gossip/types.ts';
import { compressed } from './compression.ts';
import { writeNodeState } from './fields.ts';
import { labelHeader, labelOf } from './label.ts';
import { MESSAGE_TYPE } from './message-type.ts';
import { encodeMessage } from './messages.ts';
import { MsgpackWriter } from './msgpack.ts';
import { type Seal, seal, sealedBytes } from './seal.ts';
import { frameBound } from './stream.ts';

export interface StreamWrapping {
  readonly label: string;
  /** An answer, on a connection that the other side has opened: it has no label in front. */
  readonly isAnswer: boolean;
  readonly seal: Seal | null;
  /** Compress if that makes it smaller. */
  readonly compress: boolean;
}

/** All that is written to a connection for one message. */
export function packStream(message: StreamMessage, wrapping: StreamWrapping): Uint8Array {
  const header = labelHeader(wrapping.label);
  const plain = encodeStreamMessage(message);
  const body = wrapping.compress ? compressed(plain) : plain;
  const parts = wrapping.isAnswer ? [] : [header];
  if (wrapping.seal === null) parts.push(body);
  else {
    const length = sealedBytes(wrapping.seal.version, body.length);
    const bound = frameBound(length, header);
    parts.push(bound.subarray(0, bound.length - labelOf(header).length), seal(body, bound, wrapping.seal));
  }
  return Buffer.concat(parts);
}

function encodeStreamMessage(message: StreamMessage): Uint8Array {
  if (message.kind === 'ping' || message.kind === 'ack') return encodeMessage(message);
  const out = new ByteWriter(1_024);
  const writer = new MsgpackWriter(out);
  out.uint8(MESSAGE_TYPE[message.kind]);
  switch (message.kind) {
    case 'pushPull': {
      const { join, nodes, userState } = message.state;
      writer.map(3).string('Join').bool(join).string('Nodes').int(nodes.length);
      writer.string('UserStateLen').int(userState.length);
      for (const node of nodes) writeNodeState(writer, node);
      out.bytes(userState);
      break;
    }
    case 'user':
      writer.map(1).string('UserMsgLen').int(message.payload.length);
      out.bytes(message.payload);
      break;
    case 'error':
      writer.map(1).string('Error').string(message.message);
      break;
    default:
      unreachable(message);
  }
  return out.toBytes();
}
