/**
 * The one catalogue of refusals. A reason's name is the `ErrorInfo.reason` on the wire (domain `broker`), so names are
 * append-only. `outcome` says what may be assumed of the request: `none` means it had no effect and never will.
 * docs/errors.md is made from this table; a test keeps the two equal.
 */
export type Outcome = 'none' | 'unknown';

/** Names of google.rpc.Code that the broker uses. */
export type StatusName =
  | 'CANCELLED'
  | 'UNKNOWN'
  | 'INVALID_ARGUMENT'
  | 'DEADLINE_EXCEEDED'
  | 'RESOURCE_EXHAUSTED'
  | 'FAILED_PRECONDITION'
  | 'PERMISSION_DENIED'
  | 'UNAUTHENTICATED'
  | 'ABORTED'
  | 'UNIMPLEMENTED'
  | 'INTERNAL'
  | 'UNAVAILABLE'
  | 'DATA_LOSS';

export interface ReasonRow {
  readonly status: StatusName;
  readonly outcome: Outcome;
  /** Milliseconds to wait before a retry; absent where retrying the same request cannot help. */
  readonly retryAfterMs?: number;
  /** When it happens: one sentence, shown to the caller in front of the details. */
  readonly when: string;
  /** What the caller should do next. */
  readonly next: string;
}

function row(status: StatusName, when: string, next: string, retryAfterMs?: number): ReasonRow {
  const outcome: Outcome = status === 'UNKNOWN' || status === 'INTERNAL' ? 'unknown' : 'none';
  return retryAfterMs === undefined ? { status, outcome, when, next } : { status, outcome, when, next, retryAfterMs };
}

export const REASONS = {
  MALFORMED_MESSAGE: row(
    'INVALID_ARGUMENT',
    'the bytes are not a valid protobuf message of this method',
    'encode the request with the published proto files',
  ),
  SUBJECT_EMPTY: row('INVALID_ARGUMENT', 'the subject is empty', 'name a subject of 1 to 255 bytes'),
  SUBJECT_TOO_LONG: row(
    'INVALID_ARGUMENT',
    'the subject is longer than 255 bytes of UTF-8; with a space of its tenant, 255 less the name of the tenant and one',
    'shorten the subject',
  ),
  SUBJECT_NOT_UTF8: row('INVALID_ARGUMENT', 'the subject is not valid UTF-8', 'encode the subject as UTF-8'),
  SUBJECT_CONTROL_CHARACTER: row(
    'INVALID_ARGUMENT',
    'the subject contains a control character',
    'remove U+0000-U+001F and U+007F-U+009F',
  ),
  SUBJECT_WHITE_SPACE: row('INVALID_ARGUMENT', 'the subject begins or ends with white space', 'trim the subject'),
  SUBJECT_EMPTY_TOKEN: row(
    'INVALID_ARGUMENT',
    'the subject has an empty token',
    'remove the leading, trailing or doubled dot',
  ),
  SUBJECT_WILDCARD_TOKEN: row(
    'INVALID_ARGUMENT',
    'a token of the subject is exactly "*" or ">", which are kept for patterns',
    'choose another token',
  ),
  BODY_TOO_LARGE: row(
    'INVALID_ARGUMENT',
    'the body is larger than limits.body_bytes',
    'send a smaller body or raise limits.body_bytes',
  ),
  HEADERS_TOO_LARGE: row(
    'INVALID_ARGUMENT',
    'the headers are larger than limits.headers_bytes',
    'send fewer or shorter headers',
  ),
  EXPIRATION_NEGATIVE: row(
    'INVALID_ARGUMENT',
    'expirationSeconds is negative',
    'use 0 for "never", or a positive number of seconds',
  ),
  ID_INVALID: row('INVALID_ARGUMENT', 'an id is below 1 or above 2^53-1', 'use an id that a publish answered'),
  START_INVALID: row(
    'INVALID_ARGUMENT',
    'the start position is not valid: new and earliest take true, id takes 1 to 2^53-1, time takes milliseconds since 1970',
    'name one valid start, or none for new',
  ),
  PRODUCER_INVALID: row(
    'INVALID_ARGUMENT',
    'producer_id must be 1 to 64 bytes without U+001F, together with a sequence from 1 to 2^53-1',
    'send both fields, or neither',
  ),
  SEQUENCE_UNKNOWN: row(
    'FAILED_PRECONDITION',
    'the producer is not known and its sequence is not 1, or the sequence is older than its last 1,024',
    'begin again with sequence 1 under a new producer id',
  ),
  SEQUENCE_REUSED: row(
    'INVALID_ARGUMENT',
    'this producer has used this sequence for another subject, count or content',
    'use each sequence for one request only',
  ),
  HEAD_MISMATCH: row(
    'ABORTED',
    'the last id of the subject is not the expected one',
    'read the subject and decide again',
  ),
  ID_NOT_FOUND: row(
    'INVALID_ARGUMENT',
    'the id has not been given to a message yet',
    'publish first, or ask for an id up to the head',
  ),
  ID_VOID: row('INVALID_ARGUMENT', 'the id was allotted and will never have a message', 'skip it'),
  ID_EXPIRED: row('INVALID_ARGUMENT', 'the message with this id has expired', 'skip it'),
  ID_TRIMMED: row(
    'INVALID_ARGUMENT',
    'the id is below the first id that the subject still keeps',
    'start from the first id that is kept',
  ),
  DATA_LOSS: row(
    'DATA_LOSS',
    'a stored message is missing or damaged',
    'restore the store from a backup; the other messages are served',
  ),
  OUTCOME_UNKNOWN: row(
    'UNKNOWN',
    'the broker cannot tell whether the request took effect',
    'retry with the same producer id and sequence, or read the subject',
  ),
  INTERNAL_ERROR: row('INTERNAL', 'a defect in the broker', 'report it with the log lines of this moment'),
  IN_FLIGHT_FULL: row(
    'RESOURCE_EXHAUSTED',
    'the requests being worked on, or being received, fill limits.in_flight_bytes',
    'wait and retry, or send fewer at a time',
    50,
  ),
  QUEUE_FULL: row('RESOURCE_EXHAUSTED', 'the queue of the shard that owns the subject is full', 'wait and retry', 50),
  OVERLOADED: row(
    'RESOURCE_EXHAUSTED',
    'requests have been waiting longer than the broker can make up for',
    'wait and retry with backoff',
    200,
  ),
  SUBJECTS_FULL: row(
    'RESOURCE_EXHAUSTED',
    'subjects.max subjects exist and this one is new',
    'reuse subjects or raise subjects.max',
    5_000,
  ),
  PRODUCERS_FULL: row(
    'RESOURCE_EXHAUSTED',
    'producers.max producers are known and this one is new',
    'reuse producer ids or raise producers.max',
    5_000,
  ),
  SUBSCRIPTIONS_FULL: row(
    'RESOURCE_EXHAUSTED',
    'limits.subscriptions subscriptions are open',
    'close some or raise limits.subscriptions',
    1_000,
  ),
  SUBSCRIBER_STALLED: row(
    'RESOURCE_EXHAUSTED',
    'the subscriber read nothing for subscribe.stall_timeout',
    'subscribe again from the last id received',
    1_000,
  ),
  STORE_FULL: row(
    'RESOURCE_EXHAUSTED',
    'the disk has reached the low-space mark; reads go on',
    'free space or shorten the retention',
    5_000,
  ),
  STORE_UNAVAILABLE: row('UNAVAILABLE', 'the store did not take the write', 'wait and retry', 500),
  NOT_READY: row('UNAVAILABLE', 'the broker is starting or has no Raft quorum', 'wait and retry', 500),
  SHUTTING_DOWN: row('UNAVAILABLE', 'the broker is shutting down', 'retry on another node, or when it is back', 500),
  DEADLINE_PASSED: row(
    'DEADLINE_EXCEEDED',
    'the deadline of the call passed before any work was done for it',
    'allow more time, or send fewer requests at a time',
  ),
  SUBJECT_NOT_FOUND: row(
    'INVALID_ARGUMENT',
    'nothing was ever published to the subject',
    'check its name with `broker subjects list`',
  ),
  HEADER_INVALID: row('INVALID_ARGUMENT', 'a header has no key of 1 to 255 bytes of UTF-8', 'name every header'),
  IDS_EXHAUSTED: row(
    'FAILED_PRECONDITION',
    'the ids of the subject would go beyond 2^53-1',
    'publish to another subject',
  ),
  ALLOTMENTS_FULL: row(
    'RESOURCE_EXHAUSTED',
    'this node has as many batches without a verdict as it may have',
    'wait and retry; if it lasts, look at the store',
    200,
  ),
  BATCH_TOO_LARGE: row(
    'INVALID_ARGUMENT',
    'a batch has more messages or bytes than limits allow',
    'send smaller batches',
  ),
  MESSAGE_TOO_LARGE: row(
    'RESOURCE_EXHAUSTED',
    'the gRPC message is larger than limits.message_bytes',
    'send a smaller message or raise limits.message_bytes',
  ),
  STREAM_NOT_OPENED: row(
    'INVALID_ARGUMENT',
    'the first frame of a stream must open it, and no later one may',
    'send the open frame once, first',
  ),
  SEQUENCE_OUT_OF_ORDER: row(
    'INVALID_ARGUMENT',
    'a new batch must have a higher sequence than all before it on the stream, and one that comes again must have been refused on it',
    'number the batches 1, 2, 3, … over all subjects, and send again on the same stream only what was refused',
  ),
  PREDECESSOR_FAILED: row(
    'ABORTED',
    'an earlier batch of this producer and subject was refused and may be tried again, so this one would overtake it',
    'send again from the first refused batch on, in order',
    0,
  ),
  WINDOW_EXCEEDED: row(
    'FAILED_PRECONDITION',
    'the client has sent more than the window allowed, or more than 1,024 refused batches have not come again',
    'open the stream again, stay within the window, and send what was refused again before anything new',
  ),
  PRODUCER_REPLACED: row(
    'ABORTED',
    'another stream was opened with the same producer id',
    'use each producer id on one stream at a time',
  ),
  STREAMS_FULL: row(
    'RESOURCE_EXHAUSTED',
    'limits.producer_streams publish streams are open',
    'send more on fewer streams, or raise limits.producer_streams',
    1_000,
  ),
  PATTERN_INVALID: row(
    'INVALID_ARGUMENT',
    'the pattern is not valid: "*" and ">" stand for whole tokens, and ">" only for the last',
    'correct the pattern',
  ),
  CONSUMER_SUBJECTS_FULL: row(
    'RESOURCE_EXHAUSTED',
    'the stream has more subjects than limits.consumer_subjects',
    'spread the subjects over several streams, or raise limits.consumer_subjects',
    5_000,
  ),
  RESUME_TOKEN_INVALID: row(
    'INVALID_ARGUMENT',
    'the resume token is damaged or of another kind',
    'resume from the ids that were received',
  ),
  CREDIT_INVALID: row(
    'INVALID_ARGUMENT',
    'credit must be 0 or more, and its sum below 2^53',
    'grant what you are ready to take',
  ),
  SHARDS_INVALID: row(
    'INVALID_ARGUMENT',
    'the number of shards, the shard or the slot is not one that this node has or may have',
    'see `broker shards list`; shards.max bounds the number',
  ),
  RESIZE_RUNNING: row(
    'FAILED_PRECONDITION',
    'a change of the shards is under way',
    'wait until `broker shards list` shows that it has ended',
  ),
  VERIFY_RUNNING: row(
    'FAILED_PRECONDITION',
    'this node verifies its store already',
    'wait until that has ended, or end it; one at a time is read beside the work of the node',
  ),
  REQUEST_STALLED: row(
    'DEADLINE_EXCEEDED',
    'nothing more of the request came for limits.receive_timeout, or it took too long (limits.request_timeout, or others needed its room)',
    'send each request whole and at once',
  ),
  METHOD_UNKNOWN: row(
    'UNIMPLEMENTED',
    'the broker has no such method',
    'check the name of the service and the method, or upgrade the broker',
  ),
  REQUEST_UNSUPPORTED: row(
    'UNIMPLEMENTED',
    'the call has not exactly one whole message, or its encoding is not one of identity, gzip and deflate',
    'send one message, whole, in one of these encodings',
  ),
  NOT_LEADER: row(
    'UNAVAILABLE',
    'only the leader of the cluster can do this, and this node is not, or no longer, the leader',
    'ask the leader, which `broker cluster status` names',
    500,
  ),
  NODE_ID_TAKEN: row(
    'FAILED_PRECONDITION',
    'another data directory is a member under this name',
    'remove the old member with `broker cluster remove`, or choose another name',
  ),
  QUORUM_AT_RISK: row(
    'FAILED_PRECONDITION',
    'the voters that would be left, and are heard of now, could not decide anything',
    'start the voters that are silent or add others first, or force the change',
  ),
  MEMBER_UNKNOWN: row(
    'FAILED_PRECONDITION',
    'the cluster has no such member',
    'see `broker cluster status` for its members',
  ),
  MEMBER_NOT_VOTER: row(
    'FAILED_PRECONDITION',
    'the member has no vote, so it cannot lead',
    'promote it first, or name a voter',
  ),
  MEMBER_LAGGING: row(
    'FAILED_PRECONDITION',
    'the member lacks too much of the log, or is not heard of',
    'wait until it has caught up',
    1_000,
  ),
  CHANGE_PENDING: row(
    'UNAVAILABLE',
    'another change of the members is not finished, or this one did not come to an end in time',
    'look at `broker cluster status`, and repeat the change if it was not made',
    1_000,
  ),
  MEMBER_INVALID: row('INVALID_ARGUMENT', 'the description of a member is not valid', 'correct what is named'),
  CLUSTER_MISMATCH: row(
    'FAILED_PRECONDITION',
    'the node belongs to another cluster',
    'name the nodes and the database of one cluster',
  ),
  JOIN_UNPROVEN: row(
    'PERMISSION_DENIED',
    'the node has not shown that it may be one of the cluster: by the gossip key, or by a certificate where there is no key',
    'give it the gossip.key of the others (`serf keys -list` shows which they have); where they have none, set gossip.key on all nodes, or tls.cert, tls.key and tls.ca',
  ),
  GOSSIP_OFF: row(
    'FAILED_PRECONDITION',
    'gossip of this node is off, or not encrypted',
    'start the nodes with gossip.key',
  ),
  GOSSIP_KEY_INVALID: row(
    'INVALID_ARGUMENT',
    'the change of the gossip keys is not valid',
    'see what is named; `broker cluster keys list` shows the keys that are installed',
  ),
  NOT_CLUSTERED: row(
    'FAILED_PRECONDITION',
    'this node runs alone',
    'restart it with --bootstrap, so that it opens a Raft port for others to join',
  ),
  PEER_REFUSED: row(
    'FAILED_PRECONDITION',
    'whoever calls as a peer is of another cluster, no member of this one, or a member that was called under the name of another',
    'only nodes call this service: check which address each node advertises',
  ),
  NODE_UNPROVEN: row(
    'PERMISSION_DENIED',
    'only nodes of this cluster call this, and the certificate of the caller does not say that it is that node',
    'give the node a certificate of an authority in tls.ca with URI:broker://CLUSTER/node/NODE, and set tls.cert, tls.key and tls.ca; while the cluster is on its way to TLS, tls.peers to optional',
  ),
  TENANT_INVALID: row(
    'INVALID_ARGUMENT',
    'the metadata x-tenant is not one name of 1 to 64 of the characters A-Z, a-z, 0-9, ".", "_" and "-"',
    'send it once with a valid name, or leave it out for the tenant "default"',
  ),
  QUOTA_EXCEEDED: row(
    'RESOURCE_EXHAUSTED',
    'the tenant publishes more than its quota',
    'wait as long as the retry delay says, send more slowly, or raise the quota (quotas.rules)',
    1_000,
  ),
  SETTING_UNKNOWN: row('INVALID_ARGUMENT', 'there is no setting of this name', '`broker config show` lists all'),
  SETTING_NOT_LIVE: row(
    'FAILED_PRECONDITION',
    'the setting cannot be changed while the broker runs',
    'change the flag, the variable or the file, and restart the node',
  ),
  SETTING_INVALID: row('INVALID_ARGUMENT', 'the value of the setting is not valid', 'correct what is named'),
  CREDENTIALS_MISSING: row(
    'UNAUTHENTICATED',
    'the call does not say who makes it, and who says nothing may do nothing here',
    'send a token in the metadata `authorization: Bearer TOKEN`, or a client certificate',
  ),
  CREDENTIALS_INVALID: row(
    'UNAUTHENTICATED',
    'the token or certificate is not one that this broker takes, or was taken back',
    'ask whoever runs the broker for a valid one; its log says what was wrong',
  ),
  CREDENTIALS_EXPIRED: row('UNAUTHENTICATED', 'the token has expired', 'get a new one and call again'),
  CREDENTIALS_THROTTLED: row(
    'RESOURCE_EXHAUSTED',
    'more tokens that the broker has not seen before come than it verifies',
    'wait and retry, and use each token for many calls; tokens that the broker knows go on',
    500,
  ),
  PERMISSION_DENIED: row(
    'PERMISSION_DENIED',
    'the caller may not do this',
    'ask whoever runs the broker for the permission; `broker access explain` says which rule decides',
  ),
  TENANT_BOUND: row(
    'PERMISSION_DENIED',
    'this is about the whole node or all tenants, and the caller is of one tenant',
    'call as an operator: an entry of the access file without `tenant`; what is of the tenant alone (subjects, subscriptions, connections) can be asked for as it is',
  ),
} as const satisfies Record<string, ReasonRow>;

export type Reason = keyof typeof REASONS;

/** Reasons as small numbers for rings and tables: the position in the catalogue. Valid inside one process only. */
export const REASON_NAMES = Object.keys(REASONS) as Reason[];
export const REASON_CODE = Object.fromEntries(REASON_NAMES.map((name, code) => [name, code])) as Record<Reason, number>;

/** An operating error: expected, explained, answered. Programmer errors are assertions instead. */
export class BrokerError extends Error {
  override name = 'BrokerError';
  readonly reason: Reason;

  constructor(reason: Reason, details = '', options?: ErrorOptions) {
    const row: ReasonRow = REASONS[reason];
    super(details === '' ? `${row.when}; ${row.next}` : `${row.when} (${details}); ${row.next}`, options);
    this.reason = reason;
  }

  get row(): ReasonRow {
    return REASONS[this.reason];
  }
}
