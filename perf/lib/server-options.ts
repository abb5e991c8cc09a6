/** Options of the yardstick server: those that the broker gives its own (src/grpc/server.ts), where they bear on speed. */
import type { Server } from '@grpc/grpc-js';
import { CONNECTION_WINDOW_BYTES, http2ServersOf, setHttp2Options } from '../../src/grpc/http2-tuning.ts';

export const SERVER_OPTIONS = {
  'grpc.max_concurrent_streams': 1_000,
  'grpc.max_receive_message_length': 4 << 20,
  'grpc.max_send_message_length': 8 << 20,
  'grpc.keepalive_time_ms': 60_000,
  'grpc.keepalive_timeout_ms': 20_000,
  'grpc.enable_channelz': 0,
} as const;

/** The windows of streams, for which grpc-js has no option. Before the server listens. */
export function widenWindows(server: Server): void {
  setHttp2Options(server);
}

/** The windows of connections. After the server is bound. */
export function widenConnections(server: Server): void {
  for (const http2Server of http2ServersOf(server)) {
    http2Server.on('session', (session) => session.setLocalWindowSize(CONNECTION_WINDOW_BYTES));
  }
}
