/** Asks what the checks need to know. */
import type { ClusterMembers, NodeStatus, TlsOptions } from '../../client/index.ts';
import type { Connection } from '../connection.ts';
import type { Context } from '../context.ts';
import { CliError } from '../failure.ts';
import type { Facts, NodeFact } from './checks.ts';

/** Members asked at a time. */
const NODES_AT_A_TIME = 16;

export interface GatherOptions {
  readonly addresses: readonly string[];
  readonly timeoutMs: number;
  /** Undefined: clear text. */
  readonly tls?: TlsOptions | undefined;
  /** Undefined: none. */
  readonly token?: string | undefined;
  /** Whether all members are asked for their version and their clock. */
  readonly asksAll: boolean;
}

type How = Pick<GatherOptions, 'timeoutMs' | 'tls' | 'token'>;

interface Answered {
  readonly status: NodeStatus;
  readonly clockOffsetMs: number;
}

/** Never rejects for what a broker does or does not answer: that is what is to be told. */
export async function gather(context: Context, options: GatherOptions): Promise<Facts> {
  const { addresses, asksAll } = options;
  return await withNode(context, addresses, options, async (connection) => {
    const unreachable = (why: string): Facts => ({
      unreachable: why,
      status: null,
      members: null,
      lagMax: null,
      nodes: [],
    });
    const own = await attempt(() => statusOf(connection, context.now));
    if (own instanceof CliError) return unreachable(own.message);
    const [members, lag] = await Promise.all([
      attempt(() => connection.members()),
      attempt(() => connection.subscriptions({ limit: 1 })),
    ]);
    const known = members instanceof CliError ? null : members;
    const others = asksAll && known !== null ? await askOthers(context, known, options) : [];
    const { status, clockOffsetMs } = own;
    return {
      unreachable: null,
      status,
      members: known,
      lagMax: lag instanceof CliError ? null : lag.lagMax,
      nodes: [{ node: status.nodeId, version: status.version, clockOffsetMs }, ...others],
    };
  });
}

async function askOthers(context: Context, known: ClusterMembers, how: How): Promise<NodeFact[]> {
  const others = known.members.filter(({ nodeId }) => nodeId !== known.nodeId);
  const facts: NodeFact[] = [];
  for (let from = 0; from < others.length; from += NODES_AT_A_TIME) {
    const asked = others.slice(from, from + NODES_AT_A_TIME).map(async ({ nodeId, grpcAddress }) => {
      const answer = await withNode(context, [grpcAddress], how, (connection) =>
        attempt(() => statusOf(connection, context.now)),
      );
      if (answer instanceof CliError) return { node: nodeId, version: null, clockOffsetMs: 0 };
      return { node: nodeId, version: answer.status.version, clockOffsetMs: answer.clockOffsetMs };
    });
    facts.push(...(await Promise.all(asked)));
  }
  return facts;
}

/** Its clock is taken to be read in the middle of the call. The call before has made the connection, which takes longer than an answer. */
async function statusOf(connection: Connection, now: () => number): Promise<Answered> {
  await connection.health('').catch(() => 'UNKNOWN');
  const sentAt = now();
  const status = await connection.status();
  return { status, clockOffsetMs: status.clockMs - (sentAt + now()) / 2 };
}

async function attempt<T>(work: () => Promise<T>): Promise<T | CliError> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof CliError) return error;
    throw error;
  }
}

async function withNode<T>(
  context: Context,
  addresses: readonly string[],
  { timeoutMs, tls, token }: How,
  work: (connection: Connection) => Promise<T>,
): Promise<T> {
  const connection = context.connect({ addresses, timeoutMs, tls, token, interrupt: context.interrupt });
  try {
    return await work(connection);
  } finally {
    await connection.close();
  }
}
