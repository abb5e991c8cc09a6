import { type Address, PACKET_BYTES, type PacketMessage, type StreamMessage } from '../../gossip/types.ts';
import { LogLimit } from '../log-limit.ts';
import type { NetworkLog } from '../types.ts';
import { addressKey, normalHost } from './hosts.ts';
import { PacketBudget, type PacketClass } from './packet-budget.ts';
import { PacketPort } from './packet-port.ts';
import type { RandomBytes } from './random.ts';
import { type StreamCaps, type StreamCodec, type StreamCounters, StreamPort } from './stream-port.ts';
import type { Keyring } from './wire/keyring.ts';
import { packetOverhead, packPacket, readPacket } from './wire/packet.ts';
import type { WireRefusal } from './wire/refusal.ts';
import { NONCE_BYTES, type Seal } from './wire/seal.ts';
import { StreamReader } from './wire/stream.ts';
import { packStream } from './wire/stream-writer.ts';

/** Why a packet, or a part of one, was dropped. `budget`: too many came. */
export type DropReason = WireRefusal | 'budget';

export const DROP_REASONS: readonly DropReason[] = [
  'budget',
  'empty',
  'tooLarge',
  'truncated',
  'malformed',
  'otherLabel',
  'notEncrypted',
  'encrypted',
  'noKey',
  'checksum',
  'nesting',
  'compression',
  'unknownType',
];
/** With port 0 the system chooses one for streams, and it may be taken for packets. */
const PORT_ATTEMPTS = 16;

export interface TransportHandler {
  /** What a packet had in it, in order. */
  onMessages(messages: readonly PacketMessage[], from: Address): void;
  /** A message that somebody opened a stream for; returns what to answer, or null. */
  onStream(message: StreamMessage, from: Address): StreamMessage | null;
}

export interface TransportOptions {
  /** An IPv4 or IPv6 address; `::` takes IPv4 too. */
  readonly host: string;
  /** 0: the system chooses. */
  readonly port: number;
  /** '' for none. */
  readonly label: string;
  /** Without keys gossip is not encrypted. May change. */
  readonly keyring: Keyring;
  readonly random: RandomBytes;
  readonly handler: TransportHandler;
  readonly log: NetworkLog;
  readonly caps?: Partial<StreamCaps>;
}

export interface TransportCounters {
  readonly packetsIn: number;
  readonly bytesIn: number;
  readonly packetsOut: number;
  readonly bytesOut: number;
  readonly unsent: number;
  readonly streams: Readonly<StreamCounters>;
  readonly drops: Readonly<Record<DropReason, number>>;
}

/** Gossip's two sockets, on one port, with the wire format: messages in, messages out. */
export class GossipTransport {
  readonly port: number;
  readonly #options: TransportOptions;
  readonly #streams: StreamPort;
  readonly #packets: PacketPort;
  readonly #budget = new PacketBudget(performance.now());
  readonly #drops = Object.fromEntries(DROP_REASONS.map((reason) => [reason, 0])) as Record<DropReason, number>;
  readonly #log: LogLimit;
  #members: ReadonlySet<string> = new Set();
  #isOpen = true;

  private constructor(options: TransportOptions, ports: { streams: StreamPort; packets: PacketPort }) {
    this.#options = options;
    this.#streams = ports.streams;
    this.#packets = ports.packets;
    this.port = ports.streams.port;
    this.#log = new LogLimit(options.log);
  }

  /** Rejects with the system's error if the port cannot be had. What comes before `open` resolves is lost. */
  static async open(options: TransportOptions): Promise<GossipTransport> {
    const opening: { transport: GossipTransport | null } = { transport: null };
    const { host, handler, log, caps } = options;
    const codec = streamCodec(options);
    for (let attempt = 1; ; attempt += 1) {
      const streams = await StreamPort.open({
        host,
        port: options.port,
        codec,
        onMessage: (message, from) => (opening.transport === null ? null : handler.onStream(message, from)),
        log,
        ...(caps === undefined ? {} : { caps }),
      });
      try {
        const onPacket = (bytes: Uint8Array, from: Address): void => opening.transport?.handlePacket(bytes, from);
        const packets = await PacketPort.open({ host, port: streams.port, onPacket, log });
        opening.transport = new GossipTransport(options, { streams, packets });
        return opening.transport;
      } catch (error) {
        await streams.close();
        if (options.port !== 0 || attempt >= PORT_ATTEMPTS) throw error;
      }
    }
  }

  get counters(): TransportCounters {
    return { ...this.#packets.counters, streams: this.#streams.counters, drops: this.#drops };
  }

  /** Packets that came so far. */
  get packetsIn(): number {
    return this.#packets.counters.packetsIn;
  }

  /** Bytes that a packet has beside its messages and what a compound message adds. */
  get overheadBytes(): number {
    return overheadBytes(this.#options.label, this.#options.keyring);
  }

  /** Whose packets are read before those of strangers. */
  setMembers(addresses: Iterable<Address>): void {
    this.#members = new Set([...addresses].map(({ host, port }) => addressKey({ host: normalHost(host), port })));
  }

  /** Encoded messages in one packet. `crc`: the receiver understands protocol 5. */
  send(to: Address, messages: readonly Uint8Array[], crc: boolean): void {
    const { label, keyring, random } = this.#options;
    const bytes = packPacket(messages, { label, seal: newSeal(keyring, random), crc, compress: false });
    this.#packets.send({ host: normalHost(to.host), port: to.port }, bytes);
  }

  /** Opens a stream, says the message and reads the answer; rejects with the reason. */
  exchange(to: Address, message: StreamMessage, withinMs: number): Promise<StreamMessage> {
    return this.#streams.exchange({ host: normalHost(to.host), port: to.port }, message, withinMs);
  }

  /** Resolves when the port is free. */
  async close(): Promise<void> {
    this.#isOpen = false;
    await Promise.all([this.#packets.close(), this.#streams.close()]);
  }

  /** Of the socket. */
  handlePacket(bytes: Uint8Array, from: Address): void {
    if (!this.#isOpen) return;
    const whose: PacketClass = this.#members.has(addressKey(from)) ? 'member' : 'stranger';
    if (!this.#budget.take(whose, performance.now())) {
      this.#drop('budget', 1, from);
      return;
    }
    const read = readPacket(bytes, this.#options);
    if (read.kind === 'refused') {
      this.#drop(read.refusal, 1, from);
      return;
    }
    if (read.refusal !== null) this.#drop(read.refusal, read.refusedCount, from);
    this.#options.handler.onMessages(read.messages, from);
  }

  #drop(reason: DropReason, count: number, { host, port }: Address): void {
    this.#drops[reason] += count;
    this.#log.warn(reason, 'dropped a gossip packet', { reason, remote: `${host} ${port}` });
  }
}

function streamCodec({ label, keyring, random }: TransportOptions): StreamCodec {
  return {
    reader: (isAnswer) => new StreamReader({ label, keyring, isAnswer }),
    encode: (message, isAnswer) =>
      packStream(message, { label, isAnswer, seal: newSeal(keyring, random), compress: false }),
  };
}

function newSeal(keyring: Keyring, random: RandomBytes): Seal | null {
  return keyring.primary === null ? null : { key: keyring.primary, version: 1, nonce: random.take(NONCE_BYTES) };
}

/** The same before there is a transport. */
export function overheadBytes(label: string, keyring: Keyring): number {
  const sealing: Seal | null =
    keyring.primary === null ? null : { key: keyring.primary, version: 1, nonce: new Uint8Array(NONCE_BYTES) };
  const compoundHeader = 2;
  const bytes = packetOverhead({ label, seal: sealing, crc: true }) - compoundHeader;
  return Math.min(bytes, PACKET_BYTES);
}
