/**
 * A real Apache Cassandra for tests: the one that CASSANDRA_CONTACT_POINTS names, or one of our own, from Maven Central, on Java 17. The jars
 * are fetched once into BROKER_TEST_CACHE (default ~/.cache/broker-tests).
 */
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, openSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { Client, errors, type types } from 'cassandra-driver';
import { freePorts } from '../support/ports.ts';

const VERSION = '5.0.9';

const POM = `<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>local.test</groupId><artifactId>cassandra-server</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.cassandra</groupId><artifactId>cassandra-all</artifactId><version>${VERSION}</version></dependency>
  </dependencies>
</project>
`;

const LOGBACK = `<configuration>
  <appender name="STDOUT" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%-5level %d{HH:mm:ss.SSS} [%thread] %logger{0} - %msg%n</pattern></encoder>
  </appender>
  <root level="INFO"><appender-ref ref="STDOUT"/></root>
</configuration>
`;

/** What Cassandra opens of the JDK's insides. */
const EXPORTS = ['jdk.internal.misc', 'java.lang.ref', 'sun.nio.ch'].map((name) => `java.base/${name}`);
const MORE_EXPORTS = [
  'java.management.rmi/com.sun.jmx.remote.internal.rmi',
  'java.rmi/sun.rmi.registry',
  'java.rmi/sun.rmi.server',
  'java.sql/java.sql',
  'jdk.attach/sun.tools.attach',
  'jdk.compiler/com.sun.tools.javac.file',
  'jdk.unsupported/sun.misc',
];
const OPENS = [
  ...[
    'java.io',
    'java.lang',
    'java.lang.module',
    'java.lang.reflect',
    'java.util',
    'jdk.internal.loader',
    'jdk.internal.math',
    'jdk.internal.module',
    'jdk.internal.ref',
    'jdk.internal.reflect',
    'jdk.internal.util.jar',
    'sun.nio.ch',
  ].map((name) => `java.base/${name}`),
  'jdk.compiler/com.sun.tools.javac.file',
  'jdk.management/com.sun.management.internal',
];

const JVM = [
  '-Xss256k',
  '-XX:+UseG1GC',
  '-XX:+PerfDisableSharedMem',
  '-XX:+ExitOnOutOfMemoryError',
  '-Djava.net.preferIPv4Stack=true',
  '-Djdk.attach.allowAttachSelf=true',
  '-Dio.netty.tryReflectionSetAccessible=true',
  '-Dcassandra-foreground=yes',
  '-Dcassandra.ring_delay_ms=0',
  '-Dcassandra.skip_wait_for_gossip_to_settle=0',
  '-Dcassandra.superuser_setup_delay_ms=0',
  '-Dcassandra.consistent.rangemovement=false',
  '-Dcassandra.memtable.row_overhead_size=181',
  '-Dlogback.configurationFile=logback.xml',
];

/** Starts sooner and runs slower: compiled lightly, from a class archive that the first clean stop writes. */
const FAST = [
  '-XX:TieredStopAtLevel=1',
  '-XX:+UnlockDiagnosticVMOptions',
  '-XX:+AllowArchivingWithJavaAgent',
  '-Xlog:cds=off',
  '-Xlog:cds+dynamic=off',
];

/** One text for all tests, so that `npm test` tells it once (support/skips.ts). */
const HOW =
  'needs Java 17 and Maven (Debian: openjdk-17-jre-headless maven); what leaves the server alone runs on one of yours too (CASSANDRA_CONTACT_POINTS)';

/** Why there can be no Cassandra here, neither one of the tests nor the user's, or null. */
export function cassandraMissing(): string | null {
  return process.env.CASSANDRA_CONTACT_POINTS === undefined ? ownCassandraMissing() : null;
}

/** Why no Cassandra can be started here, or null: for tests that stop and kill it, which they do to nobody else's. */
export function ownCassandraMissing(): string | null {
  const java = spawnSync('java', ['-version'], { encoding: 'utf8' });
  if (java.status !== 0 || !/version "17\./.test(java.stderr)) return `no Java 17: ${HOW}`;
  if (existsSync(join(cacheFolder(), 'lib'))) return null;
  return spawnSync('mvn', ['-v'], { stdio: 'ignore' }).status === 0 ? null : `no Maven: ${HOW}`;
}

function cacheFolder(): string {
  return join(process.env.BROKER_TEST_CACHE ?? join(homedir(), '.cache', 'broker-tests'), `cassandra-${VERSION}`);
}

/** Folder with `lib`; fetches the jars if they are not there. Two test files that fetch at once each keep their own until one is in place. */
function installed(): string {
  const folder = cacheFolder();
  if (existsSync(join(folder, 'lib'))) return folder;
  mkdirSync(folder, { recursive: true });
  const work = mkdtempSync(join(folder, 'fetch-'));
  writeFileSync(join(work, 'pom.xml'), POM);
  const plugin = 'org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies';
  const args = ['-B', '-q', plugin, '-DoutputDirectory=lib', '-DincludeScope=runtime'];
  const { status, stdout, stderr } = spawnSync('mvn', args, { cwd: work, encoding: 'utf8' });
  if (status !== 0) throw new Error(`mvn: ${stdout}${stderr}`);
  if (!existsSync(join(folder, 'lib'))) renameSync(join(work, 'lib'), join(folder, 'lib'));
  rmSync(work, { recursive: true, force: true });
  return folder;
}

export type CommitlogSync = 'batch' | 'periodic';

/** A user that may do everything, and the password with which Cassandra makes it. */
export const CASSANDRA_LOGIN = { username: 'cassandra', password: 'cassandra' };
/** The certificate of a server names this host, and 127.0.0.1. */
export const CASSANDRA_TLS_NAME = 'cassandra.test';
const KEYSTORE_PASSWORD = 'keystore';

export interface CassandraServerOptions {
  /** batch */
  readonly sync?: CommitlogSync;
  /** Clients must log in (CASSANDRA_LOGIN), may do what they are granted, and may use TLS on the same port (`tlsCa`). */
  readonly isGuarded?: boolean;
}

/** One node on loopback, all ports its own. Stopped by pid; its folder goes with it. */
export class CassandraServer {
  readonly folder: string;
  readonly port: number;
  readonly #home: string;
  readonly #ports: readonly number[];
  readonly #isGuarded: boolean;
  #process: ChildProcess | null = null;

  private constructor(home: string, folder: string, ports: readonly number[], isGuarded: boolean) {
    this.#home = home;
    this.folder = folder;
    this.port = ports[0] as number;
    this.#ports = ports;
    this.#isGuarded = isGuarded;
    writeFileSync(join(folder, 'logback.xml'), LOGBACK);
    if (isGuarded) this.#makeCertificate();
  }

  /** Certificate (PEM) of a guarded server, which vouches for itself. */
  get tlsCa(): string {
    return join(this.folder, 'certificate.pem');
  }

  #makeCertificate(): void {
    const keystore = [
      '-alias',
      'node',
      '-keystore',
      join(this.folder, 'keystore.p12'),
      '-storepass',
      KEYSTORE_PASSWORD,
    ];
    const names = `san=dns:${CASSANDRA_TLS_NAME},ip:127.0.0.1`;
    const key = ['-keyalg', 'EC', '-groupname', 'secp256r1', '-dname', 'CN=test', '-ext', names, '-validity', '2'];
    execFileSync('keytool', ['-genkeypair', '-storetype', 'PKCS12', ...key, ...keystore], { stdio: 'pipe' });
    execFileSync('keytool', ['-exportcert', '-rfc', '-file', this.tlsCa, ...keystore], { stdio: 'pipe' });
  }

  /** What the node reads when it starts the next time. */
  configure(sync: CommitlogSync): void {
    const [port, storagePort, tlsPort] = this.#ports;
    const guards = `authenticator: PasswordAuthenticator
authorizer: CassandraAuthorizer
client_encryption_options:
  enabled: true
  optional: true
  keystore: ${join(this.folder, 'keystore.p12')}
  keystore_password: ${KEYSTORE_PASSWORD}
`;
    const yaml = `cluster_name: test
partitioner: org.apache.cassandra.dht.Murmur3Partitioner
num_tokens: 1
initial_token: '0'
auto_bootstrap: false
endpoint_snitch: SimpleSnitch
dynamic_snitch: false
listen_address: 127.0.0.1
rpc_address: 127.0.0.1
native_transport_port: ${port}
storage_port: ${storagePort}
ssl_storage_port: ${tlsPort}
seed_provider: [{class_name: org.apache.cassandra.locator.SimpleSeedProvider, parameters: [{seeds: "127.0.0.1:${storagePort}"}]}]
commitlog_sync: ${sync}
${sync === 'periodic' ? 'commitlog_sync_period: 10000ms\n' : ''}commitlog_disk_access_mode: direct
commitlog_segment_size: 32MiB
commitlog_total_space: 512MiB
memtable_heap_space: 128MiB
memtable_offheap_space: 128MiB
memtable_allocation_type: offheap_buffers
key_cache_size: 8MiB
counter_cache_size: 0MiB
networking_cache_size: 32MiB
concurrent_reads: 16
concurrent_compactors: 1
compaction_throughput: 0MiB/s
paxos_variant: v2
write_request_timeout: 5000ms
read_request_timeout: 5000ms
cas_contention_timeout: 5000ms
${this.#isGuarded ? guards : ''}`;
    writeFileSync(join(this.folder, 'cassandra.yaml'), yaml);
  }

  static async start({ sync = 'batch', isGuarded = false }: CassandraServerOptions = {}): Promise<CassandraServer> {
    const folder = mkdtempSync(join(process.env.BROKER_TEST_DIR ?? '/var/tmp', 'broker-cassandra-'));
    const server = new CassandraServer(installed(), folder, await freePorts(4), isGuarded);
    server.configure(sync);
    await server.run();
    return server;
  }

  get contactPoint(): string {
    return `127.0.0.1:${this.port}`;
  }

  get pid(): number {
    return this.#process?.pid as number;
  }

  /** Starts the node on its data, and waits until its CQL port answers. */
  async run(): Promise<void> {
    const lib = join(this.#home, 'lib');
    const archive = join(this.#home, 'classes.jsa');
    const args = [
      ...[...EXPORTS, ...MORE_EXPORTS].flatMap((name) => ['--add-exports', `${name}=ALL-UNNAMED`]),
      ...OPENS.flatMap((name) => ['--add-opens', `${name}=ALL-UNNAMED`]),
      ...JVM,
      `-javaagent:${join(lib, 'jamm-0.4.0.jar')}`,
      '-Xms512m',
      '-Xmx1g',
      ...FAST,
      existsSync(archive) ? `-XX:SharedArchiveFile=${archive}` : `-XX:ArchiveClassesAtExit=${archive}`,
      `-Dcassandra.config=file://${join(this.folder, 'cassandra.yaml')}`,
      `-Dcassandra.storagedir=${this.folder}`,
      `-Dcassandra.jmx.local.port=${this.#ports[3]}`,
      '-cp',
      `${lib}/*`,
      'org.apache.cassandra.service.CassandraDaemon',
    ];
    const log = openSync(join(this.folder, 'log'), 'a');
    // As root the JVM would pin its whole heap in memory: that right is taken away.
    const isRoot = process.getuid?.() === 0;
    const command = isRoot ? 'setpriv' : 'java';
    const before = isRoot ? ['--bounding-set', '-ipc_lock', '--inh-caps', '-ipc_lock', 'java'] : [];
    const child = spawn(command, [...before, ...args], { cwd: this.folder, stdio: ['ignore', log, log] });
    this.#process = child;
    // A test file ends when its tests have; only then it stops its server.
    child.unref();
    while (!(await this.#isReady())) {
      if (child.exitCode !== null) throw new Error(readFileSync(join(this.folder, 'log'), 'utf8').slice(-3000));
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }

  /** The user is made some moments after the port was opened. */
  async #isReady(): Promise<boolean> {
    if (!(await answers(this.port))) return false;
    if (!this.#isGuarded) return true;
    try {
      await this.execute('SELECT release_version FROM system.local');
      return true;
    } catch (error) {
      if (error instanceof errors.NoHostAvailableError) return false;
      throw error;
    }
  }

  /** One statement, on a connection of its own. */
  async execute(statement: string): Promise<types.Row[]> {
    const client = new Client({
      contactPoints: [this.contactPoint],
      localDataCenter: 'datacenter1',
      ...(this.#isGuarded ? { credentials: CASSANDRA_LOGIN } : {}),
    });
    try {
      return (await client.execute(statement)).rows;
    } finally {
      await client.shutdown();
    }
  }

  async stop(signal: 'SIGTERM' | 'SIGKILL' = 'SIGTERM'): Promise<void> {
    const child = this.#process;
    if (child === null || child.exitCode !== null || child.signalCode !== null) return;
    child.ref();
    const ended = new Promise((resolve) => child.once('exit', resolve));
    child.kill(signal);
    await ended;
  }

  async remove(): Promise<void> {
    // A clean stop takes seconds and is needed once, for the class archive.
    await this.stop(existsSync(join(this.#home, 'classes.jsa')) ? 'SIGKILL' : 'SIGTERM');
    rmSync(this.folder, { recursive: true, force: true });
  }
}

function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}
