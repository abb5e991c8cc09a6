/** What `Info` answers; the admin service turns it into its own message. */
export interface SubjectInfo {
  readonly first: number;
  readonly head: number;
  readonly settled: number;
  readonly batches: number;
  readonly bytes: number;
  readonly everExpires: boolean;
}

/** The record of ToMain.INFO at `offset`. */
export function takeSubjectInfo(view: DataView, offset: number): SubjectInfo {
  return {
    first: view.getFloat64(offset, true),
    head: view.getFloat64(offset + 8, true),
    settled: view.getFloat64(offset + 16, true),
    batches: view.getFloat64(offset + 24, true),
    bytes: view.getFloat64(offset + 32, true),
    everExpires: view.getUint32(offset + 44, true) === 1,
  };
}
