/** What a real process does that is told to listen beyond loopback. */
import assert from 'node:assert/strict';
import { renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { type BrokerOptions, BrokerProcess, BrokerStartError, startBroker } from '../support/broker.ts';
import { CertificateAuthority } from '../support/certificates.ts';
import { succeeded } from '../support/commands.ts';
import { freePorts } from '../support/ports.ts';
import { temporaryFolder } from '../support/temporary.ts';
import { until } from '../support/until.ts';

const CONFIGURATION_ERROR = 2;

/** gRPC on every interface, admin on loopback. */
async function beyond(flags: readonly string[] = []): Promise<BrokerOptions> {
  const [grpc, admin] = await freePorts(2);
  return {
    addresses: { grpc: `0.0.0.0:${grpc}`, admin: `127.0.0.1:${admin}` },
    flags: ['--shards', '1', ...flags],
  };
}

test('beyond loopback a broker without TLS and authentication does not start, and says what to do', async () => {
  const broker = await BrokerProcess.create(await beyond());
  try {
    await assert.rejects(broker.restart(), (error: unknown) => {
      assert.ok(error instanceof BrokerStartError);
      assert.equal(error.exit?.code, CONFIGURATION_ERROR);
      assert.match(error.message, /grpc\.listen 0\.0\.0\.0:\d+ \(set tls\.cert and tls\.key and set access\.file/);
      return true;
    });
  } finally {
    await broker.dispose();
  }
});

test('with insecure it starts, and says so in the log, in a metric and in its status', async () => {
  const broker = await startBroker(await beyond(['--insecure']));
  try {
    await until(
      () => /INSECURE: strangers who reach this port can use or read it/.test(broker.logs),
      () => broker.logs,
    );
    const { warnings } = await succeeded(['status', '--address', broker.address.replace('0.0.0.0', '127.0.0.1')]);
    assert.match(String(warnings), /insecure: strangers who reach grpc\.listen 0\.0\.0\.0:\d+ can use or read it/);
    const metrics = await (await fetch(`http://${broker.adminAddress}/metrics`)).text();
    assert.match(metrics, /^broker_insecure_listeners 1$/m);
  } finally {
    await broker.dispose();
  }
});

test('an access file that lets those who show nothing do something is refused beyond loopback, at the start and while it runs', async (t) => {
  const folder = temporaryFolder(t);
  const { cert, key } = new CertificateAuthority(folder, 'ca').issue('node', 'DNS:localhost,IP:127.0.0.1');
  const access = join(folder, 'access.yaml');
  const write = (text: string): void => {
    writeFileSync(`${access}.new`, text);
    renameSync(`${access}.new`, access);
  };
  const tls = ['--tls-cert', cert, '--tls-key', key, '--admin-tls', 'false'];
  const broker = await BrokerProcess.create(await beyond([...tls, '--access-file', access]));
  t.after(() => broker.dispose());
  const generous = 'anonymous: {allow: {subscribe: [news]}}\n';
  write(generous);
  await assert.rejects(broker.restart(), (error: unknown) => {
    assert.ok(error instanceof BrokerStartError);
    assert.match(error.message, /ACCESS_FILE_INVALID.*anonymous may do something.*grpc\.listen 0\.0\.0\.0/);
    return true;
  });
  write('anonymous: {}\n');
  await broker.restart();
  write(generous);
  await until(
    () => /anonymous may do something.*the access file has problems, and what was in force stays/.test(broker.logs),
    () => broker.logs,
  );
});
