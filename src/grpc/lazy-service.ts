import type { MethodDefinition, Server, ServiceDefinition, UntypedHandleCall } from '@grpc/grpc-js';
import { defined } from '../base/assert.ts';

/** What has to be known of a method before its library is. */
export interface LazyMethod {
  /** /SERVICE/METHOD */
  readonly path: string;
  readonly requestStream: boolean;
  readonly responseStream: boolean;
}

type Definition = MethodDefinition<unknown, unknown>;

interface LoadedMethod {
  readonly definition: Definition;
  readonly handle: (...call: readonly unknown[]) => void;
}

/** Something that adds services to a server, as libraries of services do. */
export interface ServiceLibrary {
  addToServer(server: Pick<Server, 'addService'>): void;
}

/**
 * Serves methods of a library that is loaded with the first call of one of them; that call waits for it, and so does everything else on this thread. For
 * what a broker may never be asked, and what would take long at every start.
 */
export function addLazyService(server: Server, methods: readonly LazyMethod[], load: () => ServiceLibrary): void {
  let loaded: ReadonlyMap<string, LoadedMethod> | null = null;
  const definitions: Record<string, Definition> = {};
  const handles: Record<string, UntypedHandleCall> = {};
  for (const { path, requestStream, responseStream } of methods) {
    const method = (): LoadedMethod => {
      loaded ??= methodsOf(load());
      return defined(loaded.get(path), 'the library does not serve this method');
    };
    definitions[path] = {
      path,
      requestStream,
      responseStream,
      requestSerialize: (request) => method().definition.requestSerialize(request),
      requestDeserialize: (bytes) => method().definition.requestDeserialize(bytes),
      responseSerialize: (response) => method().definition.responseSerialize(response),
      responseDeserialize: (bytes) => method().definition.responseDeserialize(bytes),
    };
    handles[path] = ((...call: readonly unknown[]) => method().handle(...call)) as UntypedHandleCall;
  }
  server.addService(definitions, handles);
}

/** What the library would add to a server. */
function methodsOf(library: ServiceLibrary): ReadonlyMap<string, LoadedMethod> {
  const methods = new Map<string, LoadedMethod>();
  library.addToServer({
    addService(service: ServiceDefinition, handles: Record<string, UntypedHandleCall>) {
      for (const [name, definition] of Object.entries(service)) {
        // grpc-js takes either name, too.
        const handle = handles[name] ?? handles[definition.originalName ?? name];
        methods.set(definition.path, { definition, handle: handle as LoadedMethod['handle'] });
      }
    },
  });
  return methods;
}
