/** Which PostgreSQL servers a broker starts with: their durability, TLS and credentials. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, describe, it, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import pgPromise from 'pg-promise';
import { connectWithClient } from '../../src/cli/client-connection.ts';
import { PostgresStore } from '../../src/storage/postgres/postgres-store.ts';
import { StartError } from '../../src/storage/start-error.ts';
import { PostgresServer } from '../servers/postgres.ts';
import { BrokerProcess, startBroker } from '../support/broker.ts';
import { CertificateAuthority, pem } from '../support/certificates.ts';
import { BrokerClient } from '../support/client.ts';
import { temporaryFolder } from '../support/temporary.ts';
import { requireTool } from '../support/tools.ts';

const server = await PostgresServer.start();
after(() => server.remove());

type Tls = Parameters<typeof PostgresStore.open>[0]['tls'];

/** What a store says that is opened on this server; '' if it starts. */
async function openedOn(url: string, tls: Tls = null): Promise<string> {
  const schema = 't_rules';
  try {
    const options = { url, schema, pool: 2, timeoutMs: 5_000, tls, acceptWeakDurability: false };
    await (await PostgresStore.open(options)).close();
    return '';
  } catch (error) {
    assert.ok(error instanceof StartError, String(error));
    return `${error.code} ${error.message}`;
  }
}

function urlWith(change: (url: URL) => void): string {
  const url = new URL(server.url);
  change(url);
  return String(url);
}

/** Why the process did not start. */
async function refusalOf(t: TestContext, flags: readonly string[]): Promise<string> {
  const broker = await BrokerProcess.create({ flags });
  t.after(() => broker.dispose());
  let said = '';
  await assert.rejects(broker.restart(), (error: Error) => {
    said = error.message;
    return true;
  });
  return said;
}

describe('A database whose text is not UTF-8', () => {
  it('is refused, and the message says how to make one that is not', async (t) => {
    await server.sql("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0");
    const url = urlWith((changed) => {
      changed.pathname = '/latin';
    });
    const why = /^STORE_UNUSABLE .*has the encoding LATIN1, .*CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0/;
    assert.match(await openedOn(url), why);
    assert.match(await refusalOf(t, server.brokerFlags(url)), /STORE_UNUSABLE.*has the encoding LATIN1/);
    await server.sql('DROP DATABASE latin');
  });
});

describe('[S14] a PostgreSQL that loses acknowledged messages', () => {
  it('is refused, whoever says so: the server, the database or the role', async (t) => {
    t.after(() => server.configure({ fsync: null, full_page_writes: null, synchronous_commit: null }));
    const { url } = server;
    assert.equal(await openedOn(url), '');
    for (const [name, why] of [
      ['fsync', /^STORE_WEAK .*fsync is off/],
      ['full_page_writes', /^STORE_WEAK .*full_page_writes is off/],
      ['synchronous_commit', /^STORE_WEAK .*synchronous_commit is off/],
    ] as const) {
      await server.configure({ [name]: 'off' });
      assert.match(await openedOn(url), why);
      await server.configure({ [name]: null });
      assert.equal(await openedOn(url), '');
    }
    await server.sql('CREATE DATABASE quick');
    await server.sql('ALTER DATABASE quick SET synchronous_commit = off');
    await server.sql("CREATE ROLE quick LOGIN SUPERUSER PASSWORD 'test'");
    await server.sql('ALTER ROLE quick SET synchronous_commit = off');
    for (const quick of [
      urlWith((changed) => {
        changed.pathname = '/quick';
      }),
      urlWith((changed) => {
        changed.username = 'quick';
      }),
      urlWith((changed) => changed.searchParams.set('options', '-c synchronous_commit=off')),
    ]) {
      assert.match(await openedOn(quick), /^STORE_WEAK .*synchronous_commit is off/, quick);
    }
  });

  it('with a standby that could be promoted is refused unless commits wait until that has fsynced them; a standby is refused always', async (t) => {
    const standby = await server.standby('second');
    t.after(async () => {
      await server.configure({ synchronous_standby_names: null, synchronous_commit: null });
      await standby.remove();
    });
    assert.match(await openedOn(standby.url), /^STORE_UNUSABLE .*a standby, which takes no writes/);
    const { url } = server;
    assert.match(await openedOn(url), /^STORE_WEAK .*there are standbys and synchronous_standby_names is empty/);
    await server.configure({ synchronous_standby_names: 'second' });
    assert.equal(await openedOn(url), '');
    for (const commit of ['local', 'remote_write', 'off']) {
      await server.configure({ synchronous_commit: commit });
      assert.match(await openedOn(url), new RegExp(`^STORE_WEAK .*synchronous_commit is ${commit}`));
    }
    await server.configure({ synchronous_commit: null });
    assert.equal(await openedOn(url), '');
    // One that is away for a while is a standby still, if a slot is kept for it.
    await server.configure({ synchronous_standby_names: null });
    await standby.stop();
    await server.sql("SELECT pg_create_physical_replication_slot('second')");
    assert.match(await openedOn(url), /^STORE_WEAK .*there are standbys/);
    await server.sql("SELECT pg_drop_replication_slot('second')");
    assert.equal(await openedOn(url), '');
  });

  it('is not one with subscribers of a logical slot, which nobody can promote', async (t) => {
    const primary = await PostgresServer.start(['wal_level=logical']);
    t.after(() => primary.remove());
    await primary.sql('CREATE PUBLICATION everything FOR ALL TABLES');
    await primary.sql("SELECT pg_create_logical_replication_slot('changes', 'pgoutput')");
    const connection = { connectionString: primary.url, replication: 'database' };
    const subscriber = await pgPromise({ noWarnings: true })(connection).connect({ direct: true });
    t.after(() => subscriber.done());
    const how = "(proto_version '1', publication_names 'everything')";
    subscriber.none(`START_REPLICATION SLOT changes LOGICAL 0/0 ${how}`).catch(() => 'ends with the connection');
    const following = "SELECT FROM pg_stat_replication WHERE state = 'streaming'";
    while ((await primary.sql(following)).length === 0) await sleep(10);
    assert.equal(await openedOn(primary.url), '');
  });

  it('is accepted by name only, and then every answer says `replicated`', async (t) => {
    t.after(() => server.configure({ full_page_writes: null }));
    await server.configure({ full_page_writes: 'off' });
    const flags = server.brokerFlags();
    const refused = await refusalOf(t, flags);
    assert.match(refused, /PostgreSQL would lose acknowledged messages: full_page_writes is off/);
    assert.match(refused, /--store-accept-weak-durability/);
    await using broker = await startBroker({ flags: [...flags, '--store-accept-weak-durability'] });
    const admin = connectWithClient({
      addresses: [broker.address],
      timeoutMs: 10_000,
      interrupt: new AbortController().signal,
    });
    assert.equal((await admin.status()).durability, 'replicated');
    await admin.close();
    assert.match(broker.logs, /full_page_writes is off.*acknowledged messages are replicated, not durable/);
  });
});

describe('credentials', () => {
  it('that are wrong are refused, and the password is not printed', async (t) => {
    const url = urlWith((changed) => {
      changed.password = 'hush-hush';
    });
    const said = await refusalOf(t, server.brokerFlags(url));
    assert.match(said, /PostgreSQL cannot be used: password authentication failed/);
    assert.doesNotMatch(said, /hush-hush/);
  });
});

describe('TLS', () => {
  it('is as postgres.tls says: `verify` needs an authority that vouches for the name, `encrypt` needs none, `off` leaves it to the URL', async (t) => {
    if (!requireTool(t, 'openssl')) return;
    const folder = temporaryFolder(t);
    const [ours, other] = [new CertificateAuthority(folder, 'ours'), new CertificateAuthority(folder, 'other')];
    const issued = ours.issue('server', 'DNS:localhost');
    const client = ours.issue('postgres', 'DNS:client');
    const stranger = other.issue('stranger', 'DNS:client');
    server.writeData('server.crt', pem(issued.cert));
    server.writeData('server.key', pem(issued.key));
    server.writeData('root.crt', pem(ours.cert));
    const rules = readFileSync(join(server.data, 'pg_hba.conf'), 'utf8');
    t.after(async () => {
      server.writeData('pg_hba.conf', rules);
      await server.configure({ ssl: null, ssl_ca_file: null });
    });
    const named = urlWith((changed) => {
      changed.hostname = 'localhost';
    });
    const verified = { rejectUnauthorized: true, ca: pem(ours.cert) };
    assert.match(await openedOn(named, verified), /^STORE_UNUSABLE .*does not support SSL/);
    await server.configure({ ssl: 'on', ssl_ca_file: 'root.crt' });

    assert.equal(await openedOn(named, verified), '');
    assert.match(await openedOn(server.url, verified), /IP: 127\.0\.0\.1 is not in the cert/);
    const numbered = ours.issue('numbered', 'IP:127.0.0.1');
    server.writeData('server.crt', pem(numbered.cert));
    server.writeData('server.key', pem(numbered.key));
    await server.configure({});
    assert.equal(await openedOn(server.url, verified), '');
    assert.match(await openedOn(named, verified), /Host: localhost\. is not cert/);
    server.writeData('server.crt', pem(issued.cert));
    server.writeData('server.key', pem(issued.key));
    await server.configure({});
    assert.match(await openedOn(named, { rejectUnauthorized: true, ca: pem(other.cert) }), /^STORE_UNUSABLE /);
    assert.match(await openedOn(named, { rejectUnauthorized: true }), /^STORE_UNUSABLE /);
    assert.equal(await openedOn(server.url, { rejectUnauthorized: false }), '');

    // From here on the server takes encrypted connections only, of clients that show a certificate of `ours`.
    await server.sql("CREATE ROLE shown LOGIN SUPERUSER PASSWORD 'test'");
    server.writeData(
      'pg_hba.conf',
      'hostssl all shown all password clientcert=verify-ca\nhost all postgres all password\n',
    );
    await server.sql('SELECT pg_reload_conf()');
    const shown = urlWith((changed) => {
      [changed.hostname, changed.username] = ['localhost', 'shown'];
    });
    const shows = (who: typeof client) => ({ ...verified, cert: pem(who.cert), key: pem(who.key) });
    assert.match(await openedOn(shown), /^STORE_UNUSABLE .*no pg_hba.conf entry/);
    assert.match(await openedOn(shown, verified), /^STORE_UNUSABLE /);
    assert.match(await openedOn(shown, shows(stranger)), /^STORE_UNUSABLE /);
    assert.equal(await openedOn(shown, shows(client)), '');

    // sslmode of the URL, in the words of the driver.
    const mode = (text: string): string => `${named}?${text}`;
    assert.equal(await openedOn(mode(`sslmode=verify-full&sslrootcert=${ours.cert}`)), '');
    assert.match(await openedOn(mode(`sslmode=verify-full&sslrootcert=${other.cert}`)), /^STORE_UNUSABLE /);
    assert.match(await openedOn(mode('sslmode=require')), /^STORE_UNUSABLE /);
    assert.equal(await openedOn(mode('sslmode=no-verify')), '');

    // The same of a process, to the end.
    const tls = ['--postgres-tls', 'verify', '--postgres-tls-cert', client.cert, '--postgres-tls-key', client.key];
    const flags = [...server.brokerFlags(shown), ...tls];
    assert.match(await refusalOf(t, [...flags, '--postgres-tls-ca', other.cert]), /PostgreSQL cannot be used/);
    assert.match(
      await refusalOf(t, [...server.brokerFlags(`${shown}?sslmode=disable`), ...tls, '--postgres-tls-ca', ours.cert]),
      /postgres\.url must not say how to encrypt/,
    );
    await using broker = await startBroker({ flags: [...flags, '--postgres-tls-ca', ours.cert] });
    const producer = new BrokerClient(broker.address);
    assert.equal(await producer.publish({ subject: 's', body: Buffer.from('x') }), 1);
    producer.close();
    const sessions = await server.sql<{ ssl: boolean }>(
      "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = 'shown'",
    );
    assert.ok(sessions.length > 0 && sessions.every(({ ssl }) => ssl), JSON.stringify(sessions));
  });
});
