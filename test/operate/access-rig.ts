/** A broker with an access file that the test changes, and clients of its tokens. */
import { renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Client, ClientError, connect } from '../../src/client/index.ts';
import { tokenOf } from '../support/access-pairs.ts';
import { BrokerProcess, makeDataDirectory } from '../support/broker.ts';

export class AccessRig {
  readonly broker: BrokerProcess;
  readonly file: string;
  readonly #clients: Client[] = [];

  private constructor(broker: BrokerProcess, file: string) {
    this.broker = broker;
    this.file = file;
  }

  static async start(access: string, flags: readonly string[] = []): Promise<AccessRig> {
    const dataDir = makeDataDirectory('broker-access-');
    const file = join(dataDir, '..', `${dataDir.split('/').at(-1)}.yaml`);
    writeFileSync(file, access);
    const broker = await BrokerProcess.create({ dataDir, flags: ['--access-file', file, '--shards', '1', ...flags] });
    await broker.restart();
    return new AccessRig(broker, file);
  }

  /** As whoever has the token of this name. */
  as(who: string): Client {
    return this.withToken(tokenOf(who));
  }

  withToken(token: string | (() => string)): Client {
    const client = connect(this.broker.address, { token, retries: false, failFast: true });
    this.#clients.push(client);
    return client;
  }

  /** In one step, as tools that change files do it. */
  write(access: string): void {
    writeFileSync(`${this.file}.new`, access);
    renameSync(`${this.file}.new`, this.file);
  }

  async dispose(): Promise<void> {
    await Promise.allSettled(this.#clients.map((client) => client.close()));
    await this.broker.dispose();
    for (const path of [this.broker.dataDir, this.file]) rmSync(path, { recursive: true, force: true });
  }
}

/** The reason of the refusal; `ok` for none. What is no refusal is thrown. */
export async function outcomeOf(call: Promise<unknown>): Promise<string> {
  try {
    await call;
    return 'ok';
  } catch (error) {
    if (error instanceof ClientError && error.reason !== null) return error.reason;
    throw error;
  }
}
