/**
 * The row by which a cluster is born (design section 10): only the node whose insert won bootstraps, everybody else joins it. It lies in the
 * store, because nodes that share a store are one cluster, and nodes that do not cannot be.
 */
export interface BirthRow {
  /** Random, made by the node that tries the insert. */
  readonly clusterId: string;
  /** The key `cluster`. */
  readonly name: string;
  /** Settings that all nodes must have alike, as text that is compared byte by byte. */
  readonly settings: string;
}

export interface BirthResult {
  /** The row that is there now. */
  readonly row: BirthRow;
  /** True only for the caller whose row it is, also when it asks again after an answer that was lost. */
  readonly won: boolean;
}

export interface BirthRegistry {
  /** Inserts the row if there is none. Rejects with BrokerError STORE_UNAVAILABLE; asking again with the same cluster id is harmless. */
  claim(row: BirthRow): Promise<BirthResult>;
  /** The row, or null: no cluster was born in this store. */
  find(): Promise<BirthRow | null>;
  /**
   * `cluster recover`: the store becomes that of cluster `to`, if it is that of `from`; name and settings stay. Answers the row that is there now.
   * Rejects with BrokerError STORE_UNAVAILABLE; asking again is harmless.
   */
  replace(from: string, to: string): Promise<BirthRow | null>;
}
