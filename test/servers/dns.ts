/** A DNS server for tests: answers from a table over UDP and TCP, or badly. Only what the tests ask for of RFC 1035, 2782 and 3596. */
import { createSocket, type RemoteInfo, type Socket as UdpSocket } from 'node:dgram';
import { createServer, isIPv6, type Server, type Socket } from 'node:net';
import type { Endpoint } from '../../src/base/endpoint.ts';

export interface Service extends Endpoint {
  readonly priority?: number;
}

export interface Zone {
  /** By name in lower case. IPv4 and IPv6 addresses; a name that is in neither table does not exist. */
  readonly hosts?: Readonly<Record<string, readonly string[]>>;
  readonly services?: Readonly<Record<string, readonly Service[]>>;
}

/** `silent`: takes questions and says nothing. `garbage`: answers with bytes that are no answer. Else an error code of the protocol. */
export type DnsFault = 'none' | 'silent' | 'garbage' | 'servfail' | 'refused';
export type QuestionType = 'A' | 'AAAA' | 'SRV';

export interface Question {
  readonly name: string;
  readonly type: QuestionType | number;
  readonly protocol: 'udp' | 'tcp';
}

const TYPES = new Map<number, QuestionType>([
  [1, 'A'],
  [28, 'AAAA'],
  [33, 'SRV'],
]);
const FLAGS = { answer: 0x8400, truncated: 0x0200 } as const;
const CODES = { none: 0, servfail: 2, nxdomain: 3, refused: 5 } as const;
/** Without the extension of RFC 6891, which this server does not know. */
const UDP_BYTES_MAX = 512;

export class DnsServer {
  readonly address: Endpoint;
  zone: Zone = {};
  fault: DnsFault = 'none';
  /** Faults of one type of question alone; they come first. */
  readonly faults = new Map<QuestionType, DnsFault>();
  readonly questions: Question[] = [];
  readonly #udp: UdpSocket;
  readonly #tcp: Server;
  readonly #connections = new Set<Socket>();

  private constructor(udp: UdpSocket, tcp: Server) {
    this.#udp = udp;
    this.#tcp = tcp;
    this.address = { host: '127.0.0.1', port: udp.address().port };
    udp.on('message', (bytes, sender) => this.#datagram(bytes, sender));
    tcp.on('connection', (socket) => this.#connection(socket));
  }

  /** Both protocols on one port that the system chose. */
  static async start(): Promise<DnsServer> {
    for (let attempt = 0; ; attempt += 1) {
      const udp = createSocket('udp4');
      await new Promise<void>((resolve) => udp.bind(0, '127.0.0.1', resolve));
      const tcp = createServer();
      const isBound = await new Promise<boolean>((resolve) => {
        tcp.once('error', () => resolve(false)).listen(udp.address().port, '127.0.0.1', () => resolve(true));
      });
      if (isBound) return new DnsServer(udp, tcp);
      udp.close();
      if (attempt > 20) throw new Error('no port for both UDP and TCP');
    }
  }

  close(): void {
    this.#udp.close();
    for (const socket of this.#connections) socket.destroy();
    this.#tcp.close();
  }

  #datagram(bytes: Buffer, sender: RemoteInfo): void {
    const reply = this.#reply(bytes, 'udp');
    if (reply !== null) this.#udp.send(reply, sender.port, sender.address);
  }

  #connection(socket: Socket): void {
    this.#connections.add(socket);
    let held = Buffer.alloc(0);
    socket.on('error', () => socket.destroy()).on('close', () => this.#connections.delete(socket));
    socket.on('data', (bytes) => {
      held = Buffer.concat([held, bytes]);
      while (held.length >= 2 && held.length >= 2 + held.readUInt16BE(0)) {
        const end = 2 + held.readUInt16BE(0);
        const reply = this.#reply(held.subarray(2, end), 'tcp');
        held = held.subarray(end);
        if (reply === null) continue;
        const length = Buffer.alloc(2);
        length.writeUInt16BE(reply.length);
        socket.write(Buffer.concat([length, reply]));
      }
    });
  }

  #reply(query: Buffer, protocol: 'udp' | 'tcp'): Buffer | null {
    const { name, type, end } = readQuestion(query);
    this.questions.push({ name, type, protocol });
    const fault = (typeof type === 'string' ? this.faults.get(type) : undefined) ?? this.fault;
    if (fault === 'silent') return null;
    if (fault === 'garbage')
      return Buffer.concat([query.subarray(0, 2), Buffer.from('ffff00ff00ff00ffc00cc00c', 'hex')]);
    const question = query.subarray(12, end);
    if (fault !== 'none') return message(query, CODES[fault], question, []);
    const { hosts = {}, services = {} } = this.zone;
    const exists = Object.hasOwn(hosts, name) || Object.hasOwn(services, name);
    if (!exists) return message(query, CODES.nxdomain, question, []);
    const answers =
      type === 'SRV'
        ? (services[name] ?? []).map(serviceRecord)
        : (hosts[name] ?? []).filter((host) => isIPv6(host) === (type === 'AAAA')).map(addressRecord);
    const whole = message(query, CODES.none, question, answers);
    if (protocol === 'tcp' || whole.length <= UDP_BYTES_MAX) return whole;
    return message(query, CODES.none, question, [], FLAGS.truncated);
  }
}

function readQuestion(query: Buffer): { name: string; type: Question['type']; end: number } {
  const labels: string[] = [];
  let at = 12;
  while (query.readUInt8(at) !== 0) {
    const length = query.readUInt8(at);
    labels.push(query.toString('latin1', at + 1, at + 1 + length).toLowerCase());
    at += 1 + length;
  }
  const type = query.readUInt16BE(at + 1);
  return { name: labels.join('.'), type: TYPES.get(type) ?? type, end: at + 5 };
}

function message(query: Buffer, code: number, question: Buffer, answers: readonly Buffer[], flags = 0): Buffer {
  const head = Buffer.alloc(12);
  query.copy(head, 0, 0, 2);
  head.writeUInt16BE(FLAGS.answer | flags | (query.readUInt16BE(2) & 0x0100) | code, 2);
  head.writeUInt16BE(1, 4);
  head.writeUInt16BE(answers.length, 6);
  return Buffer.concat([head, question, ...answers]);
}

/** A record for the name of the question. */
function record(type: number, data: Buffer): Buffer {
  const head = Buffer.alloc(12);
  head.writeUInt16BE(0xc00c, 0);
  head.writeUInt16BE(type, 2);
  head.writeUInt16BE(1, 4);
  head.writeUInt32BE(1, 6);
  head.writeUInt16BE(data.length, 10);
  return Buffer.concat([head, data]);
}

function addressRecord(address: string): Buffer {
  if (!isIPv6(address)) return record(1, Buffer.from(address.split('.').map(Number)));
  const [left = '', right] = address.split('::');
  const groups = (text: string): string[] => text.split(':').filter((group) => group !== '');
  const missing = right === undefined ? 0 : 8 - groups(left).length - groups(right).length;
  const all = [...groups(left), ...Array.from({ length: missing }, () => '0'), ...groups(right ?? '')];
  const data = Buffer.alloc(16);
  for (const [index, group] of all.entries()) data.writeUInt16BE(Number.parseInt(group, 16), index * 2);
  return record(28, data);
}

function serviceRecord({ host, port, priority = 0 }: Service): Buffer {
  const head = Buffer.alloc(6);
  head.writeUInt16BE(priority, 0);
  head.writeUInt16BE(port, 4);
  const labels = host === '' ? [] : host.split('.');
  const name = labels.flatMap((label) => [Buffer.from([label.length]), Buffer.from(label, 'latin1')]);
  return record(33, Buffer.concat([head, ...name, Buffer.from([0])]));
}
