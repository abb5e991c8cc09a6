/** The broker's gRPC service as the commands see it. */
import { Client, credentials, type ServiceError, status } from '@grpc/grpc-js';
import {
  ListSubjectsRequest,
  ListSubjectsResponse,
  StatusRequest,
  StatusResponse,
  type Subject,
  SubjectInfoRequest,
  SubjectInfoResponse,
  TrimSubjectRequest,
  TrimSubjectResponse,
} from '../grpc/gen/broker/v1/admin.ts';
import type { Connection, NodeStatus, PublishInput, SubjectInfo } from './connection.ts';
import type { ConnectOptions } from './context.ts';
import { CliError, EXIT, explain } from './failure.ts';
import type { Message } from './message.ts';
import type { Start } from './parse.ts';
import { decodeMessage, decodePublished, encodeFetch, encodePublish, encodeSubscribe } from './wire.ts';

/** Messages that a broker can be set to send; the broker's own limit is what counts. */
const RECEIVE_BYTES_MAX = 256 * 1024 * 1024;

interface Method<Request, Response> {
  readonly path: string;
  readonly encode: (request: Request) => Uint8Array;
  readonly decode: (bytes: Uint8Array) => Response;
}

const PUBLISH: Method<PublishInput, number> = {
  path: '/broker.Broker/Publish',
  encode: encodePublish,
  decode: decodePublished,
};
const FETCH: Method<{ readonly subject: string; readonly id: number }, Message> = {
  path: '/broker.Broker/Fetch',
  encode: encodeFetch,
  decode: decodeMessage,
};
const SUBSCRIBE: Method<{ readonly subject: string; readonly start: Start }, Message> = {
  path: '/broker.Broker/Subscribe',
  encode: encodeSubscribe,
  decode: decodeMessage,
};

const STATUS = adminMethod('Status', StatusRequest, StatusResponse);
const LIST_SUBJECTS = adminMethod('ListSubjects', ListSubjectsRequest, ListSubjectsResponse);
const SUBJECT_INFO = adminMethod('SubjectInfo', SubjectInfoRequest, SubjectInfoResponse);
const TRIM_SUBJECT = adminMethod('TrimSubject', TrimSubjectRequest, TrimSubjectResponse);

function adminMethod<Request, Response>(
  name: string,
  request: { encode(message: Request): { finish(): Uint8Array } },
  response: { decode(bytes: Uint8Array): Response },
): Method<Request, Response> {
  return {
    path: `/broker.v1.Admin/${name}`,
    encode: (message) => request.encode(message).finish(),
    decode: (bytes) => response.decode(bytes),
  };
}

/** Nothing is sent before the first call. */
export function connectOverGrpc(options: ConnectOptions): Connection {
  return new GrpcConnection(options);
}

class GrpcConnection implements Connection {
  readonly #options: ConnectOptions;
  readonly #client: Client;

  constructor(options: ConnectOptions) {
    this.#options = options;
    this.#client = new Client(options.address, credentials.createInsecure(), {
      'grpc.max_receive_message_length': RECEIVE_BYTES_MAX,
      'grpc.max_send_message_length': -1,
      // Retries by the transport would hide what the broker answered.
      'grpc.enable_retries': 0,
    });
  }

  publish(input: PublishInput): Promise<number> {
    return this.#call(PUBLISH, input);
  }

  fetch(subject: string, id: number): Promise<Message> {
    return this.#call(FETCH, { subject, id });
  }

  async *subscribe(subject: string, start: Start): AsyncGenerator<Message> {
    const signal = this.#options.interrupt;
    if (signal.aborted) return;
    const { path, encode, decode } = SUBSCRIBE;
    const call = this.#client.makeServerStreamRequest(path, toBuffer(encode), decode, { subject, start });
    const cancel = (): void => call.cancel();
    signal.addEventListener('abort', cancel, { once: true });
    try {
      for await (const message of call) yield message as Message;
    } catch (error) {
      const failure = error as ServiceError;
      if (!(signal.aborted && failure.code === status.CANCELLED)) throw this.#explain(failure);
    } finally {
      signal.removeEventListener('abort', cancel);
      // The stream is over for us: that it now ends as cancelled or aborted is what we asked for, and no news to anyone.
      call.on('error', () => undefined);
      call.cancel();
    }
  }

  async status(): Promise<NodeStatus> {
    const { warnings, ...status } = await this.#call(STATUS, {});
    return { ...status, warnings: warnings.join('; ') };
  }

  async *listSubjects(prefix: string): AsyncGenerator<SubjectInfo> {
    let pageToken = '';
    do {
      const page = await this.#call(LIST_SUBJECTS, { prefix, pageToken, pageSize: 0 });
      for (const subject of page.subjects) yield infoOf(subject);
      pageToken = page.nextPageToken;
    } while (pageToken !== '');
  }

  async subjectInfo(subject: string): Promise<SubjectInfo> {
    const { subject: found } = await this.#call(SUBJECT_INFO, { subject });
    if (found === undefined) throw new CliError(EXIT.failed, 'the broker sent an answer without a subject');
    return infoOf(found);
  }

  async trim(subject: string, first: number): Promise<SubjectInfo> {
    await this.#call(TRIM_SUBJECT, { subject, first });
    return this.subjectInfo(subject);
  }

  close(): void {
    this.#client.close();
  }

  #call<Request, Response>(method: Method<Request, Response>, request: Request): Promise<Response> {
    const deadline = Date.now() + this.#options.timeoutMs;
    return new Promise((resolve, reject) => {
      const { path, encode, decode } = method;
      const call = this.#client.makeUnaryRequest(
        path,
        toBuffer(encode),
        decode,
        request,
        { deadline },
        (error, response) => {
          this.#options.interrupt.removeEventListener('abort', cancel);
          if (error !== null) reject(this.#explain(error));
          else resolve(response as Response);
        },
      );
      const cancel = (): void => call.cancel();
      this.#options.interrupt.addEventListener('abort', cancel, { once: true });
    });
  }

  #explain(error: ServiceError): Error {
    // What is not an answer of gRPC (a message that cannot be decoded, say) keeps its own words.
    return typeof error.code === 'number' ? explain(error, this.#options.address) : error;
  }
}

function toBuffer<Request>(encode: (request: Request) => Uint8Array): (request: Request) => Buffer {
  return (request) => {
    const bytes = encode(request);
    return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  };
}

function infoOf({ name, first, head, settled }: Subject): SubjectInfo {
  return { subject: name, first, head, settled };
}
