/**
 * What grpc-js 1.14.7 has no option for. Its private fields are used (grpc-node#3058), so its version is pinned exactly, and a start fails here
 * when they are gone or have no effect any more.
 */
import {
  type ClientHttp2Session,
  connect,
  type Http2Server,
  type ServerHttp2Stream,
  type ServerOptions,
} from 'node:http2';
import { duplexPair } from 'node:stream';
import { type Server, status } from '@grpc/grpc-js';
import { assert } from '../base/assert.ts';
import { HEADER_LIST_BYTES, HTTP2_OPTIONS } from './http2-options.ts';
import { type ErrorStatus, makeStatus } from './status.ts';

/** Bytes that a client may send on one stream, and on one connection, before it must wait. Node's own 64 KiB stop a fast sender at every round trip. */
export const STREAM_WINDOW_BYTES = 4 << 20;
export const CONNECTION_WINDOW_BYTES = 8 << 20;
const CHECK_TIMEOUT_MS = 5_000;

/** Before the server is bound. */
export function setHttp2Options(server: Server): void {
  const inner = server as unknown as { commonServerOptions?: ServerOptions & Record<string, unknown> };
  const options = inner.commonServerOptions;
  assert(typeof options === 'object' && options !== null, 'grpc-js has changed: no place for HTTP/2 options');
  options.settings = {
    ...options.settings,
    initialWindowSize: STREAM_WINDOW_BYTES,
    maxHeaderListSize: HEADER_LIST_BYTES,
  };
  Object.assign(options, HTTP2_OPTIONS);
}

type Respond = (error: Partial<ErrorStatus>, stream: ServerHttp2Stream, ...rest: unknown[]) => void;

/** The answer to a method that is not there, which comes before any interceptor, says why like every other. */
export function explainUnknownMethods(server: Server): void {
  const inner = server as unknown as { _respondWithError?: Respond };
  const respond = inner._respondWithError;
  assert(typeof respond === 'function', 'grpc-js has changed: it answers unknown methods in another way');
  const unknown = makeStatus('METHOD_UNKNOWN', '');
  inner._respondWithError = (error, ...rest) => {
    respond.call(inner, error.code === status.UNIMPLEMENTED ? unknown : error, ...rest);
  };
}

/** After it is bound: one for each address. */
export function http2ServersOf(server: Server): Http2Server[] {
  const inner = server as unknown as { http2Servers?: Map<Http2Server, unknown> };
  assert(inner.http2Servers instanceof Map, 'grpc-js has changed: its HTTP/2 servers are not there');
  return [...inner.http2Servers.keys()];
}

export interface EffectiveWindows {
  readonly stream: number;
  readonly connection: number;
  readonly streamsMax: number;
  readonly headerListBytes: number;
}

/** What a client is given: connects once and reads it. `host` is the address that the server listens on. */
export function effectiveWindows(host: string, port: number): Promise<EffectiveWindows> {
  return windowsOf(connect(`http://${reachable(host)}:${port}`));
}

/** The same of a server that takes TLS, perhaps only with certificates that it has none of itself: behind the handshake. */
export function windowsBehindTls(http2Server: Http2Server): Promise<EffectiveWindows> {
  const [near, far] = duplexPair();
  http2Server.emit('secureConnection', far);
  return windowsOf(connect('http://localhost', { createConnection: () => near }));
}

function windowsOf(session: ClientHttp2Session): Promise<EffectiveWindows> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => session.destroy(new Error('no answer')), CHECK_TIMEOUT_MS);
    session.once('error', (cause) => {
      clearTimeout(timer);
      reject(new Error(`the new gRPC port cannot be reached: ${cause.message}`, { cause }));
    });
    session.once('remoteSettings', (settings) => {
      // The window of the connection comes in a frame behind the settings; the answer to a ping comes behind both.
      session.ping((error) => {
        if (error !== null) return;
        clearTimeout(timer);
        const connection = session.state.remoteWindowSize ?? 0;
        session.destroy();
        resolve({
          stream: settings.initialWindowSize ?? 0,
          connection,
          streamsMax: settings.maxConcurrentStreams ?? 0,
          headerListBytes: settings.maxHeaderListSize ?? 0,
        });
      });
    });
  });
}

/** The wildcard addresses cannot be connected to everywhere; the loopback ones behind them can. */
function reachable(host: string): string {
  if (host === '0.0.0.0') return '127.0.0.1';
  if (host === '::' || host === '[::]') return '[::1]';
  return host.includes(':') && !host.startsWith('[') ? `[${host}]` : host;
}
