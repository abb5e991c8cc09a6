/** Calls that are answered by several messages; they are made once. */
import { type Client as GrpcClient, type Metadata, type ServiceError, status } from '@grpc/grpc-js';
import { errorOf } from './errors.ts';

const raw = (bytes: Buffer): Buffer => bytes;

/** The answers as they come; leaving the loop early cancels the call. `deadlineMs`: ms since 1970. Rejects with the signal's reason when it is aborted. */
export async function* serverStream(
  client: GrpcClient,
  path: string,
  request: Buffer,
  {
    deadlineMs,
    signal,
    metadata,
  }: { readonly deadlineMs: number; readonly signal: AbortSignal | undefined; readonly metadata: Metadata },
): AsyncGenerator<Buffer> {
  signal?.throwIfAborted();
  const call = client.makeServerStreamRequest(path, raw, raw, request, metadata, { deadline: deadlineMs });
  const onAbort = (): void => call.cancel();
  signal?.addEventListener('abort', onAbort, { once: true });
  try {
    for await (const answer of call) yield answer as Buffer;
  } catch (error) {
    signal?.throwIfAborted();
    throw isServiceError(error) ? errorOf(error) : error;
  } finally {
    signal?.removeEventListener('abort', onAbort);
    call.cancel();
  }
}

function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && 'code' in error && (error as ServiceError).code !== status.OK && 'metadata' in error;
}
