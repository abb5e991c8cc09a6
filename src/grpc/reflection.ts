import { fileURLToPath } from 'node:url';
import type { Server } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { ReflectionService } from '@grpc/reflection';
import { HealthImplementation } from 'grpc-health-check';
import { linkedFiles } from './descriptors.ts';

const PROTO_FOLDER = fileURLToPath(new URL('../../proto', import.meta.url));
const HEALTH_FOLDER = fileURLToPath(new URL('./proto', import.meta.resolve('grpc-health-check/package.json')));

/** Server reflection, v1 and v1alpha, of everything that is served, and of what the details of errors are made of. */
export function addReflection(server: Server): void {
  const definition = loadSync(
    [
      'broker.proto',
      'broker/v1/admin.proto',
      'broker/v1/cluster.proto',
      'broker/v1/producer.proto',
      'broker/v1/consumer.proto',
      'health/v1/health.proto',
      'google/rpc/error_details.proto',
    ],
    {
      includeDirs: [PROTO_FOLDER, HEALTH_FOLDER],
      keepCase: true,
      longs: Number,
    },
  );
  // It reads the files only; what they hang on is all the same to it.
  const format = 'Protocol Buffer 3 EnumDescriptorProto' as const;
  const all = { format, type: {}, fileDescriptorProtos: linkedFiles(definition) };
  new ReflectionService({ all }).addToServer(server);
}

export const SERVICES = [
  '',
  'broker.Broker',
  'broker.v1.Producer',
  'broker.v1.Consumer',
  'broker.v1.Admin',
  'broker.v1.Cluster',
] as const;

/** grpc.health.v1: the whole server ('') and each of its services. */
export function addHealth(server: Server): HealthImplementation {
  const health = new HealthImplementation(Object.fromEntries(SERVICES.map((name) => [name, 'NOT_SERVING' as const])));
  health.addToServer(server);
  return health;
}
