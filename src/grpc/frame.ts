/** gRPC's length-prefixed message: a flag byte (0: not compressed) and four bytes of length, big endian. */
export const FRAME_HEADER_BYTES = 5;

/** One message as it goes over the wire. */
export function frameOf(message: Uint8Array): Buffer {
  const frame = Buffer.allocUnsafe(FRAME_HEADER_BYTES + message.length);
  frame[0] = 0;
  frame.writeUInt32BE(message.length, 1);
  frame.set(message, FRAME_HEADER_BYTES);
  return frame;
}
