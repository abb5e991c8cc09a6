import type { NodeState, StreamMessage } from '../../../gossip/types.ts';
import { decompressed } from './compression.ts';
import { copyOf, type FieldNames, type Fields, readFields, readNodeState, refusalOf, senderOf } from './fields.ts';
import type { Keyring } from './keyring.ts';
import { hasLabel, labelHeader, labelOf } from './label.ts';
import { STREAM_CAPS, type StreamCaps } from './limits.ts';
import { MESSAGE_TYPE } from './message-type.ts';
import { MsgpackReader, ValueScanner } from './msgpack.ts';
import type { WireRefusal } from './refusal.ts';
import { sealedBytes, unseal } from './seal.ts';
import { StreamIntake } from './stream-intake.ts';

/**
 * What goes over a TCP connection of memberlist (net.go handleConn, readStream, readRemoteState, readUserMsg): one message, and for some one in return.
 *
 *   [label] [encrypt: type, length, sealed] [compress] message
 *
 * The one who answers writes no label, but it is bound to the encryption, with the five bytes in front of it. A push/pull is a header, the states of
 * so many nodes, and so many bytes of the delegate; a user message is a header and its bytes.
 */
export interface StreamReaderOptions {
  readonly label: string;
  /** With keys, messages that none of them opens are refused; without, all that are encrypted. */
  readonly keyring: Keyring;
  /** Reads an answer: what the accepting side writes. */
  readonly isAnswer: boolean;
  readonly caps?: StreamCaps;
}

export type StreamRead =
  | { readonly kind: 'more' }
  | {
      readonly kind: 'message';
      readonly message: StreamMessage;
      /** Nodes of a push/pull that were left out: without a name or address, or with a field beyond its cap. */
      readonly refusedNodes: number;
    }
  | { readonly kind: 'refused'; readonly refusal: WireRefusal };

type Outcome = StreamMessage | WireRefusal | 'more' | 'again';

/** So much of a chunk is taken in at a time: what is held stays within the caps and this, however large the chunk. */
const PIECE_BYTES = 64 * 1024;
/** Of a ping, an ack, an error or a header. */
const SMALL_BYTES_MAX = 64 * 1024;
const FRAME_HEADER_BYTES = 4;
const MORE: StreamRead = Object.freeze({ kind: 'more' });

const PING: FieldNames = new Set(['Node', 'SeqNo', 'SourceAddr', 'SourceNode', 'SourcePort']);
const ACK: FieldNames = new Set(['Payload', 'SeqNo']);
const ERROR: FieldNames = new Set(['Error']);
const PUSH_PULL_HEADER: FieldNames = new Set(['Join', 'Nodes', 'UserStateLen']);
const USER_HEADER: FieldNames = new Set(['UserMsgLen']);

/** Reads one message in whatever chunks it comes; bytes behind it are not looked at. Refuses as soon as it can: what follows is then not even held. */
export class StreamReader {
  readonly #label: Uint8Array;
  readonly #keyring: Keyring;
  readonly #caps: StreamCaps;
  #intake: StreamIntake;
  #scanner = new ValueScanner();
  /** Reads what comes next, if it is there. */
  #step: () => Outcome;
  #hasStarted = false;
  /** A wrapper is gone, and what it had inside is all there: nothing more can come. */
  #isWhole = false;
  #isDecompressed = false;
  #nodes: NodeState[] = [];
  #nodesLeft = 0;
  #nodesBytes = 0;
  #refusedNodes = 0;
  #result: StreamRead = MORE;

  constructor({ label, keyring, isAnswer, caps = STREAM_CAPS }: StreamReaderOptions) {
    this.#label = labelHeader(label);
    this.#keyring = keyring;
    this.#caps = caps;
    this.#intake = this.#emptyIntake();
    this.#step = isAnswer ? this.#type : this.#labelHeader;
  }

  /** Bytes of memory for what came and is not read yet. */
  get heldBytes(): number {
    return this.#intake.capacity;
  }

  /** After a message or refusal, always the same. */
  push(chunk: Uint8Array): StreamRead {
    this.#hasStarted ||= chunk.length > 0;
    for (let at = 0; at < chunk.length && this.#result === MORE; at += PIECE_BYTES) {
      if (this.#intake.add(chunk.subarray(at, at + PIECE_BYTES))) this.#run();
      else this.#finish({ kind: 'refused', refusal: 'tooLarge' });
    }
    return this.#result;
  }

  /** The other side writes no more. */
  end(): StreamRead {
    if (this.#result === MORE) {
      this.#finish({ kind: 'refused', refusal: this.#hasStarted ? 'truncated' : 'empty' });
    }
    return this.#result;
  }

  #run(): void {
    let outcome: Outcome = 'again';
    while (outcome === 'again') outcome = this.#step();
    if (outcome === 'more') {
      if (this.#isWhole) this.#finish({ kind: 'refused', refusal: 'truncated' });
    } else if (typeof outcome === 'string') this.#finish({ kind: 'refused', refusal: outcome });
    else this.#finish({ kind: 'message', message: outcome, refusedNodes: this.#refusedNodes });
  }

  #finish(result: StreamRead): void {
    this.#result = result;
    this.#intake = new StreamIntake(new Uint8Array(0), 0);
    this.#nodes = [];
  }

  #labelHeader(): Outcome {
    const bytes = this.#intake.bytes;
    if (bytes.length === 0) return 'more';
    const length = Math.min(bytes.length, this.#label.length);
    if (!hasLabel(bytes, this.#label.subarray(0, length))) return 'otherLabel';
    if (length < this.#label.length) return 'more';
    this.#intake.consume(length);
    return this.#next(this.#type);
  }

  #type(): Outcome {
    const type = this.#intake.bytes[0];
    if (type === undefined) return 'more';
    const hasKeys = this.#keyring.primary !== null;
    if (!this.#isWhole && hasKeys && type !== MESSAGE_TYPE.encrypt) return 'notEncrypted';
    this.#intake.consume(1);
    switch (type) {
      case MESSAGE_TYPE.encrypt:
        if (this.#isWhole) return 'nesting';
        return hasKeys ? this.#next(this.#frame) : 'encrypted';
      case MESSAGE_TYPE.compress:
        return this.#isDecompressed ? 'nesting' : this.#next(this.#compressed);
      case MESSAGE_TYPE.pushPull:
        return this.#next(this.#pushPullHeader);
      case MESSAGE_TYPE.user:
        return this.#next(this.#userHeader);
      case MESSAGE_TYPE.ping:
        return this.#next(() =>
          this.#struct(PING, (fields) => ({
            kind: 'ping',
            seq: fields.SeqNo,
            node: fields.Node,
            source: senderOf(fields),
          })),
        );
      case MESSAGE_TYPE.ack:
        return this.#next(() =>
          this.#struct(ACK, (fields) => ({ kind: 'ack', seq: fields.SeqNo, payload: copyOf(fields.Payload) })),
        );
      case MESSAGE_TYPE.error:
        return this.#next(() => this.#struct(ERROR, (fields) => ({ kind: 'error', message: fields.Error })));
      default:
        return 'unknownType';
    }
  }

  /** [length: 4, big-endian] [sealed] (net.go decryptRemoteState). */
  #frame(): Outcome {
    const bytes = this.#intake.bytes;
    if (bytes.length < FRAME_HEADER_BYTES) return 'more';
    const length = Buffer.from(bytes.buffer, bytes.byteOffset, FRAME_HEADER_BYTES).readUInt32BE();
    if (length > this.#caps.stateBytesMax) return 'tooLarge';
    if (length < sealedBytes(1, 0)) return 'malformed';
    const end = FRAME_HEADER_BYTES + length;
    if (bytes.length < end) return 'more';
    const bound = frameBound(length, this.#label);
    return this.#unwrapped(unseal(bytes.subarray(FRAME_HEADER_BYTES, end), bound, this.#keyring));
  }

  #compressed(): Outcome {
    return this.#value(this.#caps.stateBytesMax, (struct) => {
      this.#isDecompressed = true;
      return this.#unwrapped(decompressed(struct, this.#caps.decompressedBytesMax));
    });
  }

  /** All that is left to read is in `plain`. */
  #unwrapped(plain: Uint8Array | WireRefusal): Outcome {
    if (typeof plain === 'string') return plain;
    if (plain.length === 0) return 'empty';
    this.#isWhole = true;
    this.#intake = new StreamIntake(plain, 0);
    return this.#next(this.#type);
  }

  #pushPullHeader(): Outcome {
    return this.#struct(PUSH_PULL_HEADER, ({ Nodes, UserStateLen, Join }) => {
      if (Nodes > this.#caps.nodesMax || UserStateLen > this.#caps.userStateBytesMax) return 'tooLarge';
      this.#nodesLeft = Nodes;
      return this.#next(() => this.#nodeStates(UserStateLen, Join));
    });
  }

  #nodeStates(userStateBytes: number, join: boolean): Outcome {
    if (this.#nodesLeft === 0) {
      return this.#next(() =>
        this.#raw(userStateBytes, (userState) => ({
          kind: 'pushPull',
          state: { join, nodes: this.#nodes, userState },
        })),
      );
    }
    return this.#value(this.#caps.nodeBytesMax, (struct) => {
      this.#nodesLeft -= 1;
      this.#nodesBytes += struct.length;
      if (this.#nodesBytes > this.#caps.stateBytesMax) return 'tooLarge';
      const node = readNodeState(new MsgpackReader(struct));
      // One node that cannot be used is not to keep the states of all others from us.
      if (node === null) this.#refusedNodes += 1;
      else this.#nodes.push(node);
      return 'again';
    });
  }

  #userHeader(): Outcome {
    return this.#struct(USER_HEADER, ({ UserMsgLen }) => {
      if (UserMsgLen > this.#caps.userMessageBytesMax) return 'tooLarge';
      return this.#next(() => this.#raw(UserMsgLen, (payload) => ({ kind: 'user', payload })));
    });
  }

  #next(step: () => Outcome): 'again' {
    this.#step = step;
    return 'again';
  }

  #struct(names: FieldNames, make: (fields: Fields) => Outcome): Outcome {
    return this.#value(SMALL_BYTES_MAX, (struct) => {
      const reader = new MsgpackReader(struct);
      const fields = readFields(reader, names);
      return refusalOf(reader) ?? make(fields);
    });
  }

  /** One msgpack value of at most `bytesMax` bytes. */
  #value(bytesMax: number, take: (struct: Uint8Array) => Outcome): Outcome {
    const bytes = this.#intake.bytes;
    const length = this.#scanner.scan(bytes, bytesMax);
    if (typeof length === 'string') return length;
    this.#scanner = new ValueScanner();
    this.#intake.consume(length);
    return take(bytes.subarray(0, length));
  }

  #raw(length: number, make: (bytes: Uint8Array) => StreamMessage): Outcome {
    const bytes = this.#intake.bytes;
    return bytes.length < length ? 'more' : make(copyOf(bytes.subarray(0, length)));
  }

  /** The largest thing that is held in one piece, and the piece with which it is there. */
  #emptyIntake(): StreamIntake {
    const { stateBytesMax, userStateBytesMax, userMessageBytesMax } = this.#caps;
    const bytesMax = Math.max(stateBytesMax, userStateBytesMax, userMessageBytesMax, SMALL_BYTES_MAX);
    return new StreamIntake(new Uint8Array(0), bytesMax + PIECE_BYTES + FRAME_HEADER_BYTES);
  }
}

/** What is bound to an encrypted frame: its type and length, and the label (net.go encryptLocalState). */
export function frameBound(length: number, header: Uint8Array): Uint8Array {
  const label = labelOf(header);
  const bound = Buffer.alloc(1 + FRAME_HEADER_BYTES + label.length);
  bound[0] = MESSAGE_TYPE.encrypt;
  bound.writeUInt32BE(length, 1);
  bound.set(label, 1 + FRAME_HEADER_BYTES);
  return bound;
}
