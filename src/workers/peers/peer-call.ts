import type { ServerDuplexStream } from '@grpc/grpc-js';
import type { Reason } from '../../base/errors.ts';
import { DeliveryStream } from '../../grpc/delivery-stream.ts';
import { frameOf } from '../../grpc/frame.ts';
import { FrameIntake } from '../../grpc/frame-intake.ts';
import type { FrameMemory } from '../../grpc/frame-memory.ts';
import {
  encodeHello,
  type PeerBatchScan,
  type PeerHello,
  type PeerInterest,
  type PeerParts,
  PeerReader,
} from '../../grpc/peer-codec.ts';
import type { ReceiveBudget } from '../../grpc/receive-budget.ts';
import type { ReceivedGarbage } from '../../grpc/received-garbage.ts';
import { makeStatus } from '../../grpc/status.ts';

/** A caller that has said nothing for this time is gone, in ms. */
export const SILENCE_MS_MAX = 10_000;

/** What a call from a peer needs of the node. */
export interface PeerCallPort {
  readonly received: {
    readonly memory: FrameMemory;
    readonly garbage: ReceivedGarbage;
    readonly budget: ReceiveBudget;
  };
  /** Of this node, to be answered. */
  readonly hello: PeerHello;
  /** Null, or why it is not taken. */
  greet(hello: PeerHello): string | null;
  /** True if that was the challenge of this node to the one that the caller says it is. */
  prove(call: PeerCall, challenge: string): boolean;
  interest(node: string, interest: PeerInterest): void;
  batch(message: Buffer, scan: PeerBatchScan, node: string): void;
  broadcast(request: Buffer): void;
  /** It sends no more. */
  closed(call: PeerCall): void;
}

/** A call that another node makes: what it sends is taken as it comes, and nothing is kept. */
export class PeerCall implements PeerParts {
  /** Whose it is; '' before the hello. */
  node = '';
  incarnation = 0;
  /** When it said something last; before it is proven, when it began. Ms of performance.now(). */
  heardAt = performance.now();
  #isProven = false;
  readonly #certified: string | null;
  readonly #call: ServerDuplexStream<Buffer, Buffer>;
  readonly #out: DeliveryStream;
  readonly #port: PeerCallPort;
  readonly #reader = new PeerReader();
  #hasEnded = false;

  /** `certified`: the node that calls, by its certificate; null: it showed none. */
  constructor(call: ServerDuplexStream<Buffer, Buffer>, port: PeerCallPort, certified: string | null = null) {
    this.#call = call;
    this.#certified = certified;
    this.#port = port;
    this.#out = new DeliveryStream(call);
    new FrameIntake(
      call,
      port.received,
      (message) => this.#onMessage(message),
      (reason) => this.end(reason),
    );
    call.on('end', () => {
      if (this.#close()) call.end();
    });
    call.on('cancelled', () => this.#close());
  }

  end(reason: Reason, details = ''): void {
    if (this.#close()) this.#call.emit('error', makeStatus(reason, details));
  }

  hello(hello: PeerHello): void {
    if (this.#hasEnded) return;
    const refusal =
      this.#certified !== null && this.#certified !== hello.nodeId
        ? `it says ${hello.nodeId}, and its certificate is for ${this.#certified}`
        : this.node === ''
          ? this.#port.greet(hello)
          : 'it has said hello already';
    if (refusal !== null) {
      this.end('PEER_REFUSED', refusal);
      return;
    }
    this.node = hello.nodeId;
    this.incarnation = hello.incarnation;
    this.#out.open();
    this.#out.write(frameOf(encodeHello(this.#port.hello)));
  }

  interest(interest: PeerInterest): void {
    if (this.#isProven) this.#port.interest(this.node, interest);
  }

  batch(message: Buffer, scan: PeerBatchScan): void {
    if (this.#isProven) this.#port.batch(message, scan, this.node);
  }

  broadcast(request: Buffer): void {
    if (this.#isProven) this.#port.broadcast(request);
  }

  proof(challenge: string): void {
    if (this.node !== '' && !this.#isProven) this.#isProven = this.#port.prove(this, challenge);
  }

  #onMessage(message: Buffer): void {
    if (this.#hasEnded) return;
    if (this.#isProven) this.heardAt = performance.now();
    if (!this.#reader.read(message, this)) this.end('MALFORMED_MESSAGE');
    else if (this.node === '') this.end('PEER_REFUSED', 'it has not said hello');
  }

  #close(): boolean {
    if (this.#hasEnded) return false;
    this.#hasEnded = true;
    this.#isProven = false;
    this.#port.closed(this);
    return true;
  }
}
