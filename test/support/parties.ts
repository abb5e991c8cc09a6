/** Callers of one broker who have proven different tenants, for tests of what keeps them apart. */
import { createHash } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as grpc from '@grpc/grpc-js';
import {
  AdminClient,
  type ListSubjectsResponse,
  type SubjectInfoResponse,
  type TrimSubjectResponse,
} from '../../src/grpc/gen/broker/v1/admin.ts';
import type { ListConnectionsResponse, ListSubscriptionsResponse } from '../../src/grpc/gen/broker/v1/inspect.ts';
import { BrokerClient, CallError } from './client.ts';
import { ConsumeStream } from './consume-stream.ts';
import { PublishStream } from './publish-stream.ts';

const TENANTS = { acme: 'acme', globex: 'globex', plain: 'default', operator: 'default' } as const;
export type PartyName = keyof typeof TENANTS;

const tokenOf = (name: PartyName): string => `token-of-${name}-0123456789abcdef0123456789abcdef`;

/** Flags of a broker that knows them. */
export function accessFlags(folder: string): string[] {
  const tokens = Object.entries(TENANTS).map(([name, tenant]) => ({
    name,
    hash: `sha256:${createHash('sha256')
      .update(tokenOf(name as PartyName))
      .digest('hex')}`,
    tenant,
    allow: { publish: ['>'], subscribe: ['>'], fetch: ['>'] },
    admin: true,
  }));
  const path = join(folder, 'access.json');
  writeFileSync(path, JSON.stringify({ tokens }));
  return ['--access-file', path];
}

/** One of them at one node. What it is sent is kept, by how it asked. */
export class Party implements Disposable {
  readonly name: PartyName;
  readonly tenant: string;
  readonly client: BrokerClient;
  readonly #address: string;
  readonly #admin: AdminClient;
  readonly #metadata = new grpc.Metadata();
  readonly #streams: { cancel(): void }[] = [];

  constructor(name: PartyName, address: string) {
    this.name = name;
    this.tenant = TENANTS[name] === 'default' ? '' : TENANTS[name];
    this.#address = address;
    this.#metadata.set('authorization', `Bearer ${tokenOf(name)}`);
    this.client = new BrokerClient(address, { token: tokenOf(name) });
    this.#admin = new AdminClient(address, grpc.credentials.createInsecure(), { 'grpc.enable_http_proxy': 0 });
  }

  async consume(
    subjects: Parameters<typeof ConsumeStream.open>[1],
    options: Parameters<typeof ConsumeStream.open>[2] = {},
  ): Promise<ConsumeStream> {
    const stream = await ConsumeStream.open(this.#address, subjects, { ...options, token: tokenOf(this.name) });
    this.#streams.push(stream);
    return stream;
  }

  async produce(producer: string): Promise<PublishStream> {
    const stream = await PublishStream.open(this.#address, producer, 0, null, tokenOf(this.name));
    this.#streams.push(stream);
    return stream;
  }

  /** Names of subjects as the broker lists them, with the tenant in front where it says one. */
  async listed(tenant = '', prefix = ''): Promise<string[]> {
    const request = { prefix, pageToken: '', pageSize: 0, tenant };
    const { subjects } = await answered<ListSubjectsResponse>((done) =>
      this.#admin.listSubjects(request, this.#metadata, done),
    );
    return subjects.map((row) => (row.tenant === '' ? row.name : `${row.tenant}/${row.name}`)).sort();
  }

  async head(subject: string, tenant = ''): Promise<number> {
    const found = await answered<SubjectInfoResponse>((done) =>
      this.#admin.subjectInfo({ subject, tenant }, this.#metadata, done),
    );
    return found.subject?.head ?? 0;
  }

  async trim(subject: string, first: number, tenant = ''): Promise<number> {
    const request = { subject, first, tenant };
    const trimmed = await answered<TrimSubjectResponse>((done) =>
      this.#admin.trimSubject(request, this.#metadata, done),
    );
    return trimmed.first;
  }

  /** Tenants of the connections that it may see. */
  async connections(): Promise<string[]> {
    const { connections } = await answered<ListConnectionsResponse>((done) =>
      this.#admin.listConnections({ limit: 0 }, this.#metadata, done),
    );
    return [...new Set(connections.map(({ tenant }) => tenant))].sort();
  }

  /** Subjects of open subscriptions, with their tenants. */
  async subscriptions(): Promise<string[]> {
    const request = { order: 0, limit: 0, prefix: '', tenant: '' } as const;
    const { subscriptions } = await answered<ListSubscriptionsResponse>((done) =>
      this.#admin.listSubscriptions(request, this.#metadata, done),
    );
    return subscriptions.map(({ space, subject }) => `${space}/${subject}`).sort();
  }

  [Symbol.dispose](): void {
    for (const stream of this.#streams) stream.cancel();
    this.client.close();
    this.#admin.close();
  }
}

function answered<Response>(
  call: (done: (error: grpc.ServiceError | null, response: Response) => void) => void,
): Promise<Response> {
  return new Promise((resolve, reject) => {
    call((error, response) => {
      if (error === null) resolve(response);
      else reject(new CallError(error));
    });
  });
}
