import { once } from 'node:events';
import type { Server, ServerWritableStream } from '@grpc/grpc-js';
import { watchCaller } from './callers.ts';
import { AdminService } from './gen/broker/v1/admin.ts';
import type { DebugInfoPart, DebugInfoRequest } from './gen/broker/v1/inspect.ts';
import { tolerant } from './operator-calls.ts';
import { makeStatus } from './status.ts';

/** What a report of a problem needs of a node: files, each in parts that follow each other. */
export interface DebugPort {
  /** It says in a file of its own what could not be had. `signal`: nobody waits for the rest. */
  parts(request: DebugInfoRequest, signal: AbortSignal): AsyncIterable<DebugInfoPart>;
}

type Call = ServerWritableStream<DebugInfoRequest | symbol, DebugInfoPart>;

/** Its call belongs to the service Admin. */
export function addDebug(server: Server, debug: DebugPort, onDefect: (error: unknown) => void): void {
  const { debugInfo } = AdminService;
  server.addService(
    { debugInfo: tolerant(debugInfo) },
    { debugInfo: (call: Call) => void answer(call, debug, onDefect) },
  );
}

async function answer(call: Call, debug: DebugPort, onDefect: (error: unknown) => void): Promise<void> {
  const { request } = call;
  if (typeof request === 'symbol') {
    call.emit('error', makeStatus('MALFORMED_MESSAGE', ''));
    return;
  }
  const gone = new AbortController();
  call.on('cancelled', () => gone.abort());
  watchCaller(call, {
    ended: (reason) => {
      gone.abort();
      call.emit('error', makeStatus(reason, ''));
    },
    changed: () => false,
  });
  try {
    for await (const part of debug.parts(request, gone.signal)) {
      if (gone.signal.aborted) return;
      if (!call.write(part)) await once(call, 'drain', { signal: gone.signal });
    }
    call.end();
  } catch (error) {
    if (gone.signal.aborted) return;
    onDefect(error);
    call.emit('error', makeStatus('INTERNAL_ERROR', ''));
  }
}
