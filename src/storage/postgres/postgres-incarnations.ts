import type { IncarnationRegistry } from '../fence.ts';
import type { PostgresConnection, Statement } from './connection.ts';

export class PostgresIncarnations implements IncarnationRegistry {
  readonly #connection: PostgresConnection;
  readonly #claim: Statement;
  readonly #find: Statement;
  readonly #nodes: Statement;

  constructor(connection: PostgresConnection, schema: string) {
    this.#connection = connection;
    this.#claim = {
      name: 'incarnation-claim',
      text: `INSERT INTO ${schema}.incarnation (node, incarnation) VALUES ($1, $2)
        ON CONFLICT (node) DO UPDATE SET incarnation = excluded.incarnation, claimed_at = excluded.claimed_at`,
    };
    this.#find = { name: 'incarnation-find', text: `SELECT incarnation FROM ${schema}.incarnation WHERE node = $1` };
    this.#nodes = { name: 'incarnation-nodes', text: `SELECT node FROM ${schema}.incarnation ORDER BY node` };
  }

  async claim(node: string, incarnation: string): Promise<void> {
    await this.#connection.run(this.#claim, [node, incarnation]);
  }

  async find(node: string): Promise<string | null> {
    const { rows } = await this.#connection.run<{ incarnation: string }>(this.#find, [node]);
    return rows[0]?.incarnation ?? null;
  }

  async nodes(): Promise<readonly string[]> {
    const { rows } = await this.#connection.run<{ node: string }>(this.#nodes, []);
    return rows.map(({ node }) => node);
  }
}
