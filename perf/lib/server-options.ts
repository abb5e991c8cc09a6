/** Options of the yardstick server: those that the broker gives its own (src/grpc/server.ts), where they bear on speed. */
import type { Server } from '@grpc/grpc-js';

export const SERVER_OPTIONS = {
  'grpc.max_concurrent_streams': 1_000,
  'grpc.max_receive_message_length': 4 << 20,
  'grpc.max_send_message_length': 8 << 20,
  'grpc.keepalive_time_ms': 60_000,
  'grpc.keepalive_timeout_ms': 20_000,
} as const;

const STREAM_WINDOW_BYTES = 4 << 20;

/** The window of each stream, for which grpc-js has no option. Before the server listens. */
export function widenWindows(server: Server): void {
  const inner = server as unknown as { commonServerOptions: { settings?: object } };
  inner.commonServerOptions.settings = {
    ...inner.commonServerOptions.settings,
    initialWindowSize: STREAM_WINDOW_BYTES,
  };
}
