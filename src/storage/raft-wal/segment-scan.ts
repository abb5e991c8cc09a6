import { crc32 } from '../../base/checksum.ts';
import { isPlanted } from '../../base/planted.ts';
import type { DiskFile } from '../disk.ts';
import { StartError } from '../start-error.ts';
import * as format from './format.ts';
import { type ParsedSegment, parseSegment, RecordMalformed } from './record.ts';
import { judgeTail, type TornVerdict } from './torn.ts';
import { WalDamaged } from './wal-error.ts';

const WINDOW_BYTES = 1024 * 1024;

export interface SegmentScan {
  readonly header: ParsedSegment;
  readonly epoch: number;
  /** Checksum of the last good record. */
  readonly last: number;
  /** Position behind the last good record. */
  readonly end: number;
  readonly fileBytes: number;
  readonly records: number;
  /** Set when what follows `end` is a torn write. Only the newest segment may have one. */
  readonly torn: string | null;
}

/**
 * Reads a segment record by record in bounded memory. `visit` gets every record but the segment header; its payload is a view that is
 * valid during the call. Throws WalDamaged, or StartError RAFT_LOG_VERSION.
 * @param previous what the segment is chained to; null for the oldest one, whose predecessor was dropped.
 */
export function scanSegment(
  file: DiskFile,
  context: { readonly isNewest: boolean; readonly previous: number | null },
  visit: (type: number, payload: Uint8Array, position: number) => void,
): SegmentScan {
  const window = new Window(file);
  const headerRecord = readRecord(window, 0, { epoch: null, previous: context.previous });
  if (typeof headerRecord === 'string') throw new WalDamaged(file.path, 0, `no valid segment header (${headerRecord})`);
  if (headerRecord.type !== format.TYPE_SEGMENT) throw new WalDamaged(file.path, 0, 'the first record is not a header');
  const header = parsed(file.path, 0, () => parseSegment(headerRecord.payload));
  const epoch = headerRecord.epoch;

  let position = headerRecord.bytes;
  let last = headerRecord.crc;
  let records = 1;
  for (;;) {
    const record = readRecord(window, position, { epoch, previous: last });
    if (typeof record === 'string') {
      const torn = endOfLog(file, window.fileBytes, position, record, context.isNewest);
      return { header, epoch, last, end: position, fileBytes: window.fileBytes, records, torn };
    }
    if (record.type === format.TYPE_SEGMENT)
      throw new WalDamaged(file.path, position, 'a segment header inside a segment');
    const { type, payload } = record;
    const at = position;
    parsed(file.path, at, () => visit(type, payload, at));
    position += record.bytes;
    last = record.crc;
    records += 1;
  }
}

/** Null for a clean end, the reason for a torn one; WalDamaged for anything else. */
function endOfLog(file: DiskFile, fileBytes: number, position: number, why: Flaw, isNewest: boolean): string | null {
  if (why === 'foreign chain') {
    throw new WalDamaged(file.path, position, 'a valid record that does not belong behind the one before it');
  }
  const verdict: TornVerdict = judgeTail(file, fileBytes, position, why);
  if (verdict.kind === 'clean') return null;
  if (verdict.kind === 'damaged') throw new WalDamaged(file.path, position, verdict.reason);
  if (!isNewest) throw new WalDamaged(file.path, position, `${verdict.reason}, but newer segments follow`);
  return verdict.reason;
}

/** What is wrong with the bytes at a position. */
export type Flaw =
  /** The file ends inside the header. */
  | 'end of file'
  /** The header's checksum is wrong (zeros count as that). */
  | 'bad header'
  /** The header is right and the file ends before the payload does. */
  | 'past the end'
  /** The header is right, the payload is not. */
  | 'bad payload'
  /** All is right but for the place in the chain. */
  | 'foreign chain';

interface RawRecord {
  readonly type: number;
  readonly epoch: number;
  readonly crc: number;
  readonly bytes: number;
  readonly payload: Uint8Array;
}

function readRecord(
  window: Window,
  position: number,
  chain: { readonly epoch: number | null; readonly previous: number | null },
): RawRecord | Flaw {
  const start = window.reach(position, format.HEADER_BYTES);
  if (start < 0) return 'end of file';
  const header = window.view;
  const crc = header.getUint32(start + format.HEADER_CRC, true);
  const covered = window.bytes.subarray(start + format.BODY_CRC, start + format.HEADER_BYTES);
  if (header.getUint16(start + format.MAGIC, true) !== format.RECORD_MAGIC || crc32(covered) !== crc)
    return 'bad header';
  const version = header.getUint8(start + format.VERSION);
  const type = header.getUint8(start + format.TYPE);
  if (version !== format.FORMAT_VERSION || type < format.TYPE_SEGMENT || type > format.TYPE_POINTER) {
    throw new StartError(
      'RAFT_LOG_VERSION',
      `${window.path} at byte ${position}: record type ${type} of format version ${version} is not known; ` +
        'start the release that wrote it (nothing was changed)',
    );
  }
  const epoch = header.getUint32(start + format.EPOCH, true);
  const previous = header.getUint32(start + format.PREVIOUS, true);
  if (header.getUint32(start + format.POSITION, true) !== position) return 'foreign chain';
  if (chain.epoch !== null && epoch !== chain.epoch) return 'foreign chain';
  if (chain.previous !== null && previous !== chain.previous) return 'foreign chain';
  const length = header.getUint32(start + format.LENGTH, true);
  const bodyCrc = header.getUint32(start + format.BODY_CRC, true);
  const bytes = format.recordBytes(length);
  if (bytes > format.RECORD_BYTES_MAX) return 'foreign chain';
  // `view` and `bytes` move with the window: nothing of the header is read after this line.
  const whole = window.reach(position, bytes);
  if (whole < 0) return 'past the end';
  const body = window.bytes.subarray(whole + format.HEADER_BYTES, whole + bytes);
  if (crc32(body, previous) !== bodyCrc && !isPlanted('S5-log-unchecked')) return 'bad payload';
  return { type, epoch, crc, bytes, payload: body.subarray(0, length) };
}

/** Malformed content under a right checksum becomes damage with its place. */
function parsed<T>(path: string, position: number, body: () => T): T {
  try {
    return body();
  } catch (error) {
    if (error instanceof RecordMalformed) throw new WalDamaged(path, position, error.message, { cause: error });
    throw error;
  }
}

/** A moving window on a file. */
class Window {
  readonly fileBytes: number;
  readonly path: string;
  readonly #file: DiskFile;
  /** Of the window, if nothing asks for more. */
  readonly #usualBytes: number;
  #bytes: Buffer;
  #view: DataView;
  #from = 0;
  #filled = 0;

  constructor(file: DiskFile) {
    this.#file = file;
    this.path = file.path;
    this.fileBytes = file.size();
    this.#usualBytes = Math.min(WINDOW_BYTES, this.fileBytes);
    this.#bytes = Buffer.allocUnsafeSlow(this.#usualBytes);
    this.#view = new DataView(this.#bytes.buffer);
  }

  get bytes(): Buffer {
    return this.#bytes;
  }

  get view(): DataView {
    return this.#view;
  }

  /** Where in `bytes` the file's [position, position + length) is, or -1 if the file is too short. */
  reach(position: number, length: number): number {
    if (position + length > this.fileBytes) return -1;
    const inside = position >= this.#from && position + length <= this.#from + this.#filled;
    if (!inside) this.#load(position, length);
    return position - this.#from;
  }

  #load(position: number, length: number): void {
    const wanted = Math.max(length, this.#usualBytes);
    if (this.#bytes.length < wanted || (this.#bytes.length > WINDOW_BYTES && wanted === this.#usualBytes)) {
      this.#bytes = Buffer.allocUnsafeSlow(wanted);
      this.#view = new DataView(this.#bytes.buffer);
    }
    this.#from = position;
    this.#filled = this.#file.preadSync(this.#bytes, 0, wanted, position);
    if (this.#filled < length) throw new WalDamaged(this.path, position, 'the file became shorter while it was read');
  }
}
