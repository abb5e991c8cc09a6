/** What `Info` answers; the admin service turns it into its own message. */
export interface SubjectInfo {
  readonly first: number;
  readonly head: number;
  readonly settled: number;
  readonly batches: number;
  readonly bytes: number;
  readonly everExpires: boolean;
}
