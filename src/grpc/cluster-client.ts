import { Client, Metadata, type ServiceError } from '@grpc/grpc-js';
import { FORWARDED } from './node-callers.ts';
import { CLEAR_TEXT, type PeerCredentials } from './peer-credentials.ts';

/** One method of a generated service. */
export interface UnaryMethod<Request, Response> {
  readonly path: string;
  requestSerialize(value: Request): Buffer;
  responseDeserialize(bytes: Buffer): Response;
}

export interface PeerCallOptions {
  /** Epoch ms. */
  readonly deadlineMs: number;
  /** The call was made to this node, which passes it on. */
  readonly isForwarded: boolean;
  /** Of whoever asked this node, where it passes the call on. Only who is known to be a node is shown it: never in clear text. */
  readonly authorization?: string | null;
  /** Who has to answer, by its certificate; none or null: any node of the cluster. */
  readonly node?: string | null;
  /** None: clear text. */
  readonly security?: PeerCredentials;
  readonly signal?: AbortSignal;
}

/** One call to another node, on a connection of its own: there are a few a minute. Rejects with grpc's ServiceError. */
export async function callPeer<Request, Response>(
  address: string,
  method: UnaryMethod<Request, Response>,
  request: Request,
  { deadlineMs, isForwarded, authorization = null, node = null, security = CLEAR_TEXT, signal }: PeerCallOptions,
): Promise<Response> {
  const channel = {
    'grpc.enable_channelz': 0,
    // Nodes reach each other themselves, as on their Raft ports: a proxy from `http_proxy` is for the way out of their network.
    'grpc.enable_http_proxy': 0,
    ...security.channelOptions,
  };
  const client = new Client(address, await security.to(address, node), channel);
  const metadata = new Metadata();
  if (isForwarded) metadata.set(FORWARDED, '1');
  if (authorization !== null && security.isRequired) metadata.set('authorization', authorization);
  return await new Promise<Response>((resolve, reject) => {
    const call = client.makeUnaryRequest(
      method.path,
      (value: Request) => method.requestSerialize(value),
      (bytes: Buffer) => method.responseDeserialize(bytes),
      request,
      metadata,
      { deadline: deadlineMs },
      (error: ServiceError | null, response?: Response) => {
        signal?.removeEventListener('abort', cancel);
        if (error === null) resolve(response as Response);
        else reject(error);
      },
    );
    const cancel = (): void => call.cancel();
    signal?.addEventListener('abort', cancel);
    // While it was found out how to speak to it.
    if (signal?.aborted === true) cancel();
  }).finally(() => client.close());
}

/** What a call was answered, or that it was not: anything else is a defect. */
export function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && 'code' in error && 'metadata' in error;
}
