import { createRequire } from 'node:module';
import type { Server } from '@grpc/grpc-js';
import type * as HealthCheck from 'grpc-health-check';
import { addLazyService } from './lazy-service.ts';

const require = createRequire(import.meta.url);

const SERVICES = [
  '',
  'broker.Broker',
  'broker.v1.Producer',
  'broker.v1.Consumer',
  'broker.v1.Admin',
  'broker.v1.Cluster',
] as const;

const METHODS = [
  { name: 'Check', responseStream: false },
  { name: 'Watch', responseStream: true },
  { name: 'List', responseStream: false },
];

/** grpc.health.v1: the whole server ('') and each of its services, of which all are well or none is. The first call takes a tenth of a second. */
export class Health {
  #status: HealthCheck.ServingStatus = 'NOT_SERVING';
  #library: HealthCheck.HealthImplementation | null = null;

  constructor(server: Server) {
    const methods = METHODS.map(({ name, responseStream }) => ({
      path: `/grpc.health.v1.Health/${name}`,
      requestStream: false,
      responseStream,
    }));
    addLazyService(server, methods, () => this.#load());
  }

  setServing(isServing: boolean): void {
    this.#status = isServing ? 'SERVING' : 'NOT_SERVING';
    for (const name of SERVICES) this.#library?.setStatus(name, this.#status);
  }

  #load(): HealthCheck.HealthImplementation {
    const { HealthImplementation } = require('grpc-health-check') as typeof HealthCheck;
    this.#library = new HealthImplementation(Object.fromEntries(SERVICES.map((name) => [name, this.#status])));
    return this.#library;
  }
}
