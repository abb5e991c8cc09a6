import type { BirthRegistry, BirthResult, BirthRow } from '../birth.ts';
import type { PostgresConnection, Statement } from './connection.ts';

interface Row {
  readonly cluster_id: string;
  readonly name: string;
  readonly settings: string;
}

export class PostgresBirth implements BirthRegistry {
  readonly #connection: PostgresConnection;
  readonly #insert: Statement;
  readonly #select: Statement;
  readonly #replace: Statement;

  constructor(connection: PostgresConnection, schema: string) {
    this.#connection = connection;
    this.#insert = {
      name: 'birth-insert',
      text: `INSERT INTO ${schema}.birth (cluster_id, name, settings) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`,
    };
    this.#select = { name: 'birth-select', text: `SELECT cluster_id, name, settings FROM ${schema}.birth` };
    this.#replace = {
      name: 'birth-replace',
      text: `UPDATE ${schema}.birth SET cluster_id = $2 WHERE cluster_id = $1`,
    };
  }

  async claim(row: BirthRow): Promise<BirthResult> {
    await this.#connection.run(this.#insert, [row.clusterId, row.name, row.settings]);
    const found = (await this.find()) ?? row;
    return { row: found, won: found.clusterId === row.clusterId };
  }

  async replace(from: string, to: string): Promise<BirthRow | null> {
    await this.#connection.run(this.#replace, [from, to]);
    return await this.find();
  }

  async find(): Promise<BirthRow | null> {
    const { rows } = await this.#connection.run<Row>(this.#select, []);
    const [row] = rows;
    return row === undefined ? null : { clusterId: row.cluster_id, name: row.name, settings: row.settings };
  }
}
