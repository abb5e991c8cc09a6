/** Options of the yardstick server: those that the broker gives its own (src/grpc), where they bear on speed. */
export const SERVER_OPTIONS = {
  'grpc.max_concurrent_streams': 1_000,
  'grpc.max_receive_message_length': 4 << 20,
  'grpc.max_send_message_length': 4 << 20,
} as const;
