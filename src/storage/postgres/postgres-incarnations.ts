import type { IncarnationRegistry } from '../fence.ts';
import type { PostgresConnection, Statement } from './connection.ts';

export class PostgresIncarnations implements IncarnationRegistry {
  readonly #connection: PostgresConnection;
  readonly #claim: Statement;
  readonly #find: Statement;

  constructor(connection: PostgresConnection, schema: string) {
    this.#connection = connection;
    this.#claim = {
      name: 'incarnation-claim',
      text: `INSERT INTO ${schema}.incarnation (node, incarnation) VALUES ($1, $2)
        ON CONFLICT (node) DO UPDATE SET incarnation = excluded.incarnation, claimed_at = excluded.claimed_at`,
    };
    this.#find = { name: 'incarnation-find', text: `SELECT incarnation FROM ${schema}.incarnation WHERE node = $1` };
  }

  async claim(node: string, incarnation: string): Promise<void> {
    await this.#connection.run(this.#claim, [node, incarnation]);
  }

  async find(node: string): Promise<string | null> {
    const { rows } = await this.#connection.run<{ incarnation: string }>(this.#find, [node]);
    return rows[0]?.incarnation ?? null;
  }
}
