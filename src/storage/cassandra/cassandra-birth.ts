import { type Client, types } from 'cassandra-driver';
import { BrokerError } from '../../base/errors.ts';
import type { BirthRegistry, BirthResult, BirthRow } from '../birth.ts';

/** Lightweight transactions of all data centres; the read is serial too, so it sees a claim that was decided and not yet answered. */
export class CassandraBirth implements BirthRegistry {
  readonly #client: Client;
  readonly #table: string;

  constructor(client: Client, keyspace: string) {
    this.#client = client;
    this.#table = `${keyspace}.birth`;
  }

  async claim(row: BirthRow): Promise<BirthResult> {
    const text = `INSERT INTO ${this.#table} (one, cluster_id, name, settings) VALUES (1, ?, ?, ?) IF NOT EXISTS`;
    await this.#execute(text, [row.clusterId, row.name, row.settings], types.consistencies.quorum);
    const found = (await this.find()) ?? row;
    return { row: found, won: found.clusterId === row.clusterId };
  }

  async replace(from: string, to: string): Promise<BirthRow | null> {
    const text = `UPDATE ${this.#table} SET cluster_id = ? WHERE one = 1 IF cluster_id = ?`;
    await this.#execute(text, [to, from], types.consistencies.quorum);
    return await this.find();
  }

  async find(): Promise<BirthRow | null> {
    const text = `SELECT cluster_id, name, settings FROM ${this.#table} WHERE one = 1`;
    const row = (await this.#execute(text, [], types.consistencies.serial)).first();
    if (row === null || row.get('cluster_id') === null) return null;
    return {
      clusterId: String(row.get('cluster_id')),
      name: String(row.get('name')),
      settings: String(row.get('settings')),
    };
  }

  async #execute(text: string, values: readonly string[], consistency: types.consistencies): Promise<types.ResultSet> {
    try {
      return await this.#client.execute(text, [...values], {
        prepare: true,
        consistency,
        serialConsistency: types.consistencies.serial,
      });
    } catch (error) {
      throw new BrokerError('STORE_UNAVAILABLE', 'the birth row', { cause: error });
    }
  }
}
