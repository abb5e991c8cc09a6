import { Packr } from 'msgpackr';

/**
 * What the Raft thread puts into the data of an entry: a msgpack map `{v, kind, time, payload}`, its keys in this order. `useRecords: false` keeps it plain
 * msgpack, readable without knowledge of the writer. Golden bytes: test/unit/raft-wal-envelope.test.ts.
 */
export const ENVELOPE_VERSION = 1;

export interface Envelope {
  /** What the payload is; append-only. 0 to 65535. A new kind is proposed only when every member says it knows it. */
  readonly kind: number;
  /** Log time: epoch ms. */
  readonly time: number;
  readonly payload: Uint8Array;
}

const KIND_MAX = 0xffff;

/** RAFT_ENTRY_VERSION: written by a newer program. RAFT_ENTRY_MALFORMED: not an envelope at all. Either way the node cannot apply it and must halt. */
export class EnvelopeError extends Error {
  override name = 'EnvelopeError';
  readonly code: 'RAFT_ENTRY_VERSION' | 'RAFT_ENTRY_MALFORMED';

  constructor(code: 'RAFT_ENTRY_VERSION' | 'RAFT_ENTRY_MALFORMED', message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

export class EnvelopeCodec {
  readonly #packr = new Packr({ useRecords: false, mapsAsObjects: true });

  /** Bytes of their own: later calls do not change them. */
  encode(envelope: Envelope): Buffer {
    return this.#packr.pack({
      v: ENVELOPE_VERSION,
      kind: envelope.kind,
      time: envelope.time,
      payload: envelope.payload,
    });
  }

  /** The payload is a view on `bytes`. Throws EnvelopeError. */
  decode(bytes: Uint8Array): Envelope {
    let value: unknown;
    try {
      value = this.#packr.unpack(bytes);
    } catch (cause) {
      throw malformed('not msgpack', cause);
    }
    if (typeof value !== 'object' || value === null) throw malformed('not a map');
    const { v, kind, time, payload } = value as Record<string, unknown>;
    if (v !== ENVELOPE_VERSION) {
      if (typeof v !== 'number') throw malformed('no version');
      throw new EnvelopeError(
        'RAFT_ENTRY_VERSION',
        `a log entry has envelope version ${v}, this program knows ${ENVELOPE_VERSION} only`,
      );
    }
    if (typeof kind !== 'number' || !Number.isInteger(kind) || kind < 0 || kind > KIND_MAX) throw malformed('bad kind');
    if (typeof time !== 'number' || !Number.isFinite(time)) throw malformed('bad time');
    if (!(payload instanceof Uint8Array)) throw malformed('no payload');
    return { kind, time, payload };
  }
}

function malformed(detail: string, cause?: unknown): EnvelopeError {
  return new EnvelopeError('RAFT_ENTRY_MALFORMED', `a log entry is not an envelope: ${detail}`, { cause });
}
