import type { Server, ServerDuplexStream } from '@grpc/grpc-js';
import type { Engine } from './engine.ts';
import { makeStatus } from './status.ts';

const identity = (bytes: Buffer): Buffer => bytes;

export const CONSUMER_SERVICE = {
  consume: {
    path: '/broker.v1.Consumer/Consume',
    requestStream: true,
    responseStream: true,
    requestSerialize: identity,
    requestDeserialize: identity,
    responseSerialize: identity,
    responseDeserialize: identity,
  },
} as const;

export function addConsumer(server: Server, engine: Engine, escalate: (defect: unknown) => void): void {
  server.addService(CONSUMER_SERVICE, {
    consume: (stream: ServerDuplexStream<Buffer, Buffer>): void => {
      try {
        engine.consume(stream);
      } catch (defect) {
        stream.emit('error', makeStatus('INTERNAL_ERROR', ''));
        escalate(defect);
      }
    },
  });
}
