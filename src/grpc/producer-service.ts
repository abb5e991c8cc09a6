import type { Server, ServerDuplexStream } from '@grpc/grpc-js';
import type { Engine } from './engine.ts';
import { makeStatus } from './status.ts';

const identity = (bytes: Buffer): Buffer => bytes;

export const PRODUCER_SERVICE = {
  publishStream: {
    path: '/broker.v1.Producer/PublishStream',
    requestStream: true,
    responseStream: true,
    requestSerialize: identity,
    requestDeserialize: identity,
    responseSerialize: identity,
    responseDeserialize: identity,
  },
} as const;

export function addProducer(server: Server, engine: Engine, escalate: (defect: unknown) => void): void {
  server.addService(PRODUCER_SERVICE, {
    publishStream: (stream: ServerDuplexStream<Buffer, Buffer>): void => {
      try {
        engine.publishStream(stream);
      } catch (defect) {
        stream.emit('error', makeStatus('INTERNAL_ERROR', ''));
        escalate(defect);
      }
    },
  });
}
