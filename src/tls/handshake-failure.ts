/** Why a handshake came to nothing, in words that say what to do about it. */
export interface HandshakeFailure {
  /** One of a few, for metrics and for limits of the log. */
  readonly kind: HandshakeFailureKind;
  readonly reason: string;
}

export const HANDSHAKE_FAILURES = [
  'clear_text',
  'version',
  'cipher',
  'no_certificate',
  'bad_certificate',
  'refused_by_client',
  'timeout',
  'closed',
  'other',
] as const;
export type HandshakeFailureKind = (typeof HANDSHAKE_FAILURES)[number];

const CLEAR_TEXT = 'the client speaks clear text, or no TLS, on a port that takes TLS alone';
const ALERT = 'the client does not take the certificate of this node, and says so';

/** By the code of Node's error. */
const CODES: Readonly<Record<string, HandshakeFailure>> = {
  ERR_SSL_HTTP_REQUEST: { kind: 'clear_text', reason: CLEAR_TEXT },
  ERR_SSL_HTTPS_PROXY_REQUEST: { kind: 'clear_text', reason: CLEAR_TEXT },
  ERR_SSL_WRONG_VERSION_NUMBER: { kind: 'clear_text', reason: CLEAR_TEXT },
  ERR_SSL_PACKET_LENGTH_TOO_LONG: { kind: 'clear_text', reason: CLEAR_TEXT },
  ERR_SSL_UNSUPPORTED_PROTOCOL: { kind: 'version', reason: 'the client has no version of TLS from tls.min_version on' },
  ERR_SSL_NO_SHARED_CIPHER: {
    kind: 'cipher',
    reason: 'the client has no cipher suite with forward secrecy and authenticated encryption that this node has',
  },
  ERR_SSL_PEER_DID_NOT_RETURN_A_CERTIFICATE: {
    kind: 'no_certificate',
    reason: 'the client shows no certificate, and tls.client_certs is required',
  },
  ERR_SSL_NO_APPLICATION_PROTOCOL: { kind: 'other', reason: 'the client wants another protocol than this port speaks' },
  ERR_TLS_HANDSHAKE_TIMEOUT: { kind: 'timeout', reason: 'the client did not end the handshake in time' },
  ECONNRESET: { kind: 'closed', reason: 'the client closed the connection in the middle of the handshake' },
};

/** By what OpenSSL says of a certificate. */
const CERTIFICATES: Readonly<Record<string, string>> = {
  CERT_HAS_EXPIRED: 'the certificate of the client has expired',
  CERT_NOT_YET_VALID: 'the certificate of the client is not valid yet; compare the clocks',
  DEPTH_ZERO_SELF_SIGNED_CERT: 'the client signed its certificate itself; tls.ca has to have signed it',
  SELF_SIGNED_CERT_IN_CHAIN: 'the authority of the certificate of the client is not in tls.ca',
  UNABLE_TO_GET_ISSUER_CERT: 'the authority of the certificate of the client is not in tls.ca, or its chain is cut',
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    'the authority of the certificate of the client is not in tls.ca, or its chain is cut',
  UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    'the authority of the certificate of the client is not in tls.ca, or its chain is cut',
  CERT_SIGNATURE_FAILURE: 'the certificate of the client was not signed by the authority that it names',
  INVALID_PURPOSE: 'the certificate of the client is not one for clients (extended key usage clientAuth)',
};

/** `certificateError`: what was wrong with the certificate of the client, if that is why it was refused. */
export function handshakeFailure(code: string, certificateError: string | null): HandshakeFailure {
  if (certificateError !== null) {
    const reason = CERTIFICATES[certificateError] ?? `the certificate of the client is refused: ${certificateError}`;
    return { kind: 'bad_certificate', reason };
  }
  if (code.includes('_ALERT_')) return { kind: 'refused_by_client', reason: `${ALERT} (${code})` };
  return CODES[code] ?? { kind: 'other', reason: `the handshake failed: ${code}` };
}
