import { type Client, types } from 'cassandra-driver';
import { BrokerError } from '../../base/errors.ts';
import type { IncarnationRegistry } from '../fence.ts';

/** Starts of one node that meet in the same moment; each is overtaken at most once by each of the others. */
const TRIES_MAX = 16;

/**
 * Claims are lightweight transactions, once a start: a write by the clock of whoever claims could lose to an earlier one. All of one data centre,
 * which every node of a cluster names, so that an ordinary read at its quorum sees what was claimed.
 */
export class CassandraIncarnations implements IncarnationRegistry {
  readonly #client: Client;
  readonly #readTimeoutMs: number;
  readonly #text: { readonly find: string; readonly insert: string; readonly replace: string; readonly nodes: string };

  /** `readTimeoutMs`: of a look; a claim has as long as other things of a start. */
  constructor(client: Client, keyspace: string, readTimeoutMs: number) {
    this.#client = client;
    this.#readTimeoutMs = readTimeoutMs;
    const table = `${keyspace}.incarnation`;
    this.#text = {
      find: `SELECT incarnation FROM ${table} WHERE node = ?`,
      insert: `INSERT INTO ${table} (node, incarnation) VALUES (?, ?) IF NOT EXISTS`,
      nodes: `SELECT node FROM ${table}`,
      replace: `UPDATE ${table} SET incarnation = ? WHERE node = ? IF incarnation = ?`,
    };
  }

  async claim(node: string, incarnation: string): Promise<void> {
    const { find, insert, replace } = this.#text;
    for (let tries = 0; tries < TRIES_MAX; tries++) {
      const found = incarnationOf(await this.#execute(find, [node], types.consistencies.localSerial));
      if (found === incarnation) return;
      const [text, values] = found === null ? [insert, [node, incarnation]] : [replace, [incarnation, node, found]];
      await this.#execute(text, values, types.consistencies.localQuorum);
    }
    throw new BrokerError('STORE_UNAVAILABLE', 'others claim the incarnation of this node again and again');
  }

  async find(node: string): Promise<string | null> {
    const { localQuorum } = types.consistencies;
    return incarnationOf(await this.#execute(this.#text.find, [node], localQuorum, this.#readTimeoutMs));
  }

  /** Of a claim that was not answered the row may not be seen yet; a claim of whoever asks here then comes before or behind it. */
  async nodes(): Promise<readonly string[]> {
    const { rows } = await this.#execute(this.#text.nodes, [], types.consistencies.localQuorum);
    return rows.map((row) => String(row.get('node')));
  }

  async #execute(
    text: string,
    values: readonly string[],
    consistency: types.consistencies,
    readTimeout?: number,
  ): Promise<types.ResultSet> {
    try {
      return await this.#client.execute(text, [...values], {
        prepare: true,
        consistency,
        serialConsistency: types.consistencies.localSerial,
        ...(readTimeout === undefined ? {} : { readTimeout }),
      });
    } catch (error) {
      throw new BrokerError('STORE_UNAVAILABLE', 'the incarnation of this node', { cause: error });
    }
  }
}

function incarnationOf(result: types.ResultSet): string | null {
  const row = result.first();
  return row === null ? null : String(row.get('incarnation'));
}
