/** First byte of a message (memberlist net.go). Append only: they are the protocol. */
export const MESSAGE_TYPE = Object.freeze({
  ping: 0,
  indirectPing: 1,
  ack: 2,
  suspect: 3,
  alive: 4,
  dead: 5,
  pushPull: 6,
  compound: 7,
  user: 8,
  compress: 9,
  encrypt: 10,
  nack: 11,
  hasCrc: 12,
  error: 13,
  /** High, to be told from a version of encryption (0 or 1), which takes the same place. */
  hasLabel: 244,
});
