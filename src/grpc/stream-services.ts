/** The services of batches: one bidirectional call each, whose frames the engine reads and writes as bytes. */
import type { Server, ServerDuplexStream } from '@grpc/grpc-js';
import { callerOf } from './callers.ts';
import type { CallTracing, Engine } from './engine.ts';
import { makeStatus } from './status.ts';
import { traceOpen } from './traced-calls.ts';

type Handler = (stream: ServerDuplexStream<Buffer, Buffer>) => void;
/** Takes the calls of other nodes. */
export type PeerHandler = Handler;

const identity = (bytes: Buffer): Buffer => bytes;

/** broker.v1.Producer and broker.v1.Consumer; with `peers` broker.v1.Peer too. `escalate`: a handler has thrown, which is a defect. */
export function addStreamServices(
  server: Server,
  engine: Engine,
  peers: PeerHandler | null,
  escalate: (defect: unknown) => void,
  tracing: CallTracing | null = null,
): void {
  const add = (name: string, path: string, handle: Handler): void => {
    const method = {
      path,
      requestStream: true,
      responseStream: true,
      requestSerialize: identity,
      requestDeserialize: identity,
      responseSerialize: identity,
      responseDeserialize: identity,
    };
    const guarded: Handler = (stream) => {
      try {
        handle(stream);
      } catch (defect) {
        stream.emit('error', makeStatus('INTERNAL_ERROR', ''));
        escalate(defect);
      }
    };
    server.addService({ [name]: method }, { [name]: guarded });
  };
  add('publishStream', '/broker.v1.Producer/PublishStream', (stream) => {
    if (tracing !== null) traceOpen(tracing, 'PublishStream', stream, true);
    engine.publishStream(stream, callerOf(stream));
  });
  add('consume', '/broker.v1.Consumer/Consume', (stream) => {
    if (tracing !== null) traceOpen(tracing, 'Consume', stream, false);
    engine.consume(stream, callerOf(stream));
  });
  if (peers !== null) add('exchange', '/broker.v1.Peer/Exchange', peers);
}
