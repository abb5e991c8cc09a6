import type { ServerOptions } from 'node:http2';

/** Headers of one request; a longer list ends its stream. */
export const HEADER_LIST_BYTES = 16 << 10;
/** Resets a connection may send at once and per second: nghttp2's defaults (1,000 and 33) end honest clients that cancel many calls (F4). */
const RESET_BURST = 6_000;
const RESET_RATE = 500;
/**
 * Streams above the cap that a connection may try in its life before it is closed. Node refuses a stream that comes together with the
 * cancel that makes room for it, so an honest client at the cap meets refusals too; its default of 100 would end its connection.
 */
const REJECTED_STREAMS = 10_000;

/**
 * What Node 24.21 lets a server bound for each connection, looked through one by one. grpc-js 1.14.7 sets three of them (memory, concurrent streams, and no
 * limit for the heads that we send, which are short). The others have Node's own values, written down so that another Node changes nothing unseen.
 *
 * Not here, since they bound what others cannot drive: maxReservedRemoteStreams and peerMaxConcurrentStreams (pushes, which a server
 * does not take), maxDeflateDynamicTableSize (4 KiB, for heads that we send), paddingStrategy, maxSendHeaderBlockLength.
 */
export const HTTP2_OPTIONS: ServerOptions & Readonly<Record<string, unknown>> = {
  streamResetBurst: RESET_BURST,
  streamResetRate: RESET_RATE,
  maxSessionRejectedStreams: REJECTED_STREAMS,
  // Pairs of one head. gRPC needs nine, and metadata beyond a hundred has no use here; memory is bounded by the list's length.
  maxHeaderListPairs: 128,
  // Frames that are invalid and harm one stream only, or are empty: honest ones come in races around a reset, a few in a connection's life.
  maxSessionInvalidFrames: 1_000,
  // Entries of one SETTINGS frame; there are eight that anybody knows.
  maxSettings: 32,
  // Answers that a client may keep back. grpc-js has one ping on its way; settings are sent once.
  maxOutstandingPings: 10,
  maxOutstandingSettings: 10,
  // Two content types or tenants in one head are refused, not joined.
  strictSingleValueFields: true,
  // White space around values would let two parsers read two things.
  strictFieldWhitespaceValidation: true,
  // With encryption: who speaks something else than HTTP/2 goes after so many ms. The same wait for HTTP/2 is limits.handshake_timeout.
  unknownProtocolTimeout: 10_000,
};
