import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import type { Server } from '@grpc/grpc-js';
import type * as ProtoLoader from '@grpc/proto-loader';
import type * as Reflection from '@grpc/reflection';
import { linkedFiles } from './descriptors.ts';
import { addLazyService, type ServiceLibrary } from './lazy-service.ts';

const require = createRequire(import.meta.url);
const PROTO_FOLDER = fileURLToPath(new URL('../../proto', import.meta.url));
const HEALTH_FOLDER = fileURLToPath(new URL('./proto', import.meta.resolve('grpc-health-check/package.json')));
const VERSIONS = ['v1', 'v1alpha'];

/** Server reflection, v1 and v1alpha, of everything that is served, and of what the details of errors are made of. The first call takes a fifth of a second. */
export function addReflection(server: Server): void {
  const methods = VERSIONS.map((version) => ({
    path: `/grpc.reflection.${version}.ServerReflection/ServerReflectionInfo`,
    requestStream: true,
    responseStream: true,
  }));
  addLazyService(server, methods, loadReflection);
}

function loadReflection(): ServiceLibrary {
  const { loadSync } = require('@grpc/proto-loader') as typeof ProtoLoader;
  const { ReflectionService } = require('@grpc/reflection') as typeof Reflection;
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
  return new ReflectionService({ all });
}
