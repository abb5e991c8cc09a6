/** What the console asks of the broker. Rejections are BrokerErrors, or statuses with the broker's details; any other is a defect. */
import type { Reason } from '../base/errors.ts';
import type {
  AdviseShardsResponse,
  ListShardsResponse,
  ListSubjectsRequest,
  ListSubjectsResponse,
  ShardsChange,
  StatusResponse,
  SubjectInfoRequest,
  SubjectInfoResponse,
} from '../grpc/gen/broker/v1/admin.ts';
import type { MembersResponse } from '../grpc/gen/broker/v1/cluster.ts';
import type {
  ListConnectionsRequest,
  ListConnectionsResponse,
  ListSubscriptionsRequest,
  ListSubscriptionsResponse,
  ListTenantsResponse,
  Setting,
  TopSubjectsRequest,
  TopSubjectsResponse,
} from '../grpc/gen/broker/v1/inspect.ts';

/** `space`: of whoever asks; empty for those who see the subjects of all tenants. */
export interface NodePort {
  status(): Promise<StatusResponse>;
  listSubjects(request: ListSubjectsRequest, space: Uint8Array): Promise<ListSubjectsResponse>;
  subjectInfo(request: SubjectInfoRequest, space: Uint8Array): Promise<SubjectInfoResponse>;
  listShards(): Promise<ListShardsResponse>;
  adviseShards(): Promise<AdviseShardsResponse>;
  /** Resolves when the change has begun. */
  resizeShards(shards: number): Promise<ShardsChange>;
}

export interface MembersPort {
  members(context: { readonly isForwarded: boolean; readonly deadlineMs: number }): Promise<MembersResponse>;
}

/** What runs on the node just now. */
export interface InspectPort {
  listSubscriptions(request: ListSubscriptionsRequest, space: Uint8Array): Promise<ListSubscriptionsResponse>;
  listConnections(request: ListConnectionsRequest, space: Uint8Array): Promise<ListConnectionsResponse>;
  topSubjects(request: TopSubjectsRequest, space: Uint8Array): Promise<TopSubjectsResponse>;
}

export interface TenantsPort {
  /** At most so many, those with most messages first. */
  listTenants(limit: number, space: Uint8Array): ListTenantsResponse;
}

/** Secrets come masked. */
export interface SettingsPort {
  listSettings(): readonly Setting[];
}

/** As the public service has it: the request and the answer as bytes, once; `error` carries the broker's details. `tenant`: in whose space, '' for none. */
export interface FetchPort {
  fetch(
    request: Buffer,
    deadlineMs: number,
    done: (error: object | null, response?: Buffer) => void,
    tenant: string,
  ): void;
}

/** Parts that a node may lack are null. */
export interface ConsoleSources {
  /** Of the node. */
  readonly name: string;
  readonly node: NodePort;
  readonly members: MembersPort;
  readonly messages: FetchPort;
  /** Messages written to subscribers since the start. */
  readonly delivered: () => number;
  readonly inspect: InspectPort | null;
  readonly tenants: TenantsPort | null;
  readonly settings: SettingsPort | null;
}

/** Something that was changed here. */
export interface ConsoleChange {
  readonly caller: string;
  /** HOST:PORT */
  readonly peer: string;
  /** Such as `ResizeShards`. */
  readonly method: string;
  readonly arguments: Readonly<Record<string, unknown>>;
  /** `ok`, or the reason of the refusal. */
  readonly outcome: string;
}

/** Somebody who is logged in. */
export interface ConsoleCaller {
  readonly name: string;
  readonly tenant: string;
  /** Of their tenant; empty: they see the subjects of all. */
  readonly space: Uint8Array;
  readonly administers: boolean;
  /** Why they may call no more, or null. */
  readonly refusal: Reason | null;
  /** Why a message of this subject of a tenant ('' for none) is not shown to them, which is written down then, or null. `peer`: HOST:PORT of who asks. */
  fetchRefusal(subject: string, tenant: string, peer: string): Reason | null;
}

/** Why somebody is not listened to. */
export interface ConsoleDenial {
  readonly reason: Reason;
  /** When to try again, in ms; 0: time alone changes nothing. */
  readonly retryAfterMs: number;
}

/** Who has a token. */
export interface ConsoleAccess {
  /** `authorization`: as a header has it; `peer`: HOST:PORT; `what`: for the audit. Only who may look at the node. */
  observer(authorization: string, peer: string, what: string): Promise<ConsoleCaller | ConsoleDenial>;
  /** Somebody (null: nobody knows who) is refused something for who they are: for the audit. */
  refused(reason: Reason, name: string | null, peer: string, what: string): void;
}

export interface ConsoleOptions {
  /** Null: whoever reaches the port may look, and there is nobody to log in. */
  readonly access: ConsoleAccess | null;
  /** Null while the node starts. */
  readonly sources: () => ConsoleSources | null;
  /** console.write, where it may be used at all. */
  readonly mayWrite: boolean;
  /** Names by which browsers may call the node. */
  readonly hosts: readonly string[];
  /** What was changed, for the log. */
  readonly onChange: (change: ConsoleChange) => void;
  /** An answer that is a defect. */
  readonly onDefect: (error: unknown) => void;
  /** Epoch ms. */
  readonly now: () => number;
}
