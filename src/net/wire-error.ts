/**
 * What came is not what a peer sends. TOO_LONG: a length beyond its cap. CHECKSUM: bytes were changed on their way. MALFORMED: the bytes are whole and make no
 * sense. MAGIC: not this protocol at all.
 */
export type WireErrorCode = 'TOO_LONG' | 'CHECKSUM' | 'MALFORMED' | 'MAGIC';

/** Ends the connection on which it came, and nothing else. */
export class WireError extends Error {
  override name = 'WireError';
  readonly code: WireErrorCode;

  constructor(code: WireErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}
