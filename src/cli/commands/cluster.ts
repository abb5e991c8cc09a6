import { setTimeout as sleep } from 'node:timers/promises';
import { Command } from 'commander';
import { NAME_PATTERN } from '../../base/node-name.ts';
import type { ClusterChange, ClusterMember, ClusterMembers } from '../../client/index.ts';
import type { Connection } from '../connection.ts';
import type { Context } from '../context.ts';
import { CliError, EXIT, usageError } from '../failure.ts';
import { addressesOf, type ClientOptions, example, withClient, withConnection } from '../options.ts';
import type { Row } from '../output.ts';
import { parseAddress } from '../parse.ts';
import { recoverCommand } from './cluster-recover.ts';
import { keysCommand } from './gossip-keys.ts';

const COLUMNS = ['node', 'role', 'leader', 'heard', 'behind', 'open', 'grpc', 'raft', 'instance'];
/** With gossip: what Raft and what gossip say, side by side. */
const BOTH_COLUMNS = ['node', 'role', 'leader', 'heard', 'gossip', 'behind', 'open', 'grpc', 'raft', 'instance'];
/** How often, in ms, and how long a node that leaves is asked whether another one leads. */
const WATCH_MS = 100;
const WATCH_MAX_MS = 10_000;

export function clusterCommand(context: Context): Command {
  const command = new Command('cluster').description(
    'The nodes of a cluster: who they are, who leads, and changing who is one of them. Any node answers.',
  );
  return command
    .addCommand(membersCommand(context))
    .addCommand(statusCommand(context))
    .addCommand(addCommand(context))
    .addCommand(removeCommand(context))
    .addCommand(leaveCommand(context))
    .addCommand(promoteCommand(context))
    .addCommand(transferCommand(context))
    .addCommand(keysCommand(context))
    .addCommand(recoverCommand(context));
}

function membersCommand(context: Context): Command {
  const command = withClient(new Command('members'))
    .description(
      'The nodes, with what the leader knows of them: whether it hears them, how many log entries they are behind, and their batches without a verdict. With gossip also how that sees them, whom else it has met, and why the two differ.',
    )
    .action(async (options: ClientOptions) => {
      await withConnection(context, options, async (connection) => {
        const found = await connection.members();
        await context.out.rows(memberRows(found), found.seen.length > 0 ? BOTH_COLUMNS : COLUMNS, options.output);
        for (const warning of found.warnings) await context.notes.line(`broker: ${warning}`);
        for (const { nodeId, difference } of found.seen) {
          if (difference !== '') await context.notes.line(`broker: ${nodeId}: ${difference}`);
        }
      });
    });
  return example(command, 'broker cluster members', 'broker cluster members -o json');
}

function statusCommand(context: Context): Command {
  const command = withClient(new Command('status'))
    .description('The cluster as a whole: who leads, how many nodes may fail, what needs attention.')
    .action(async (options: ClientOptions) => {
      await withConnection(context, options, async (connection) => {
        const found = await connection.members();
        const count = (role: string): number => found.members.filter((member) => member.role === role).length;
        await context.out.record(
          {
            cluster: found.cluster,
            cluster_id: found.clusterId,
            node: found.nodeId,
            leader: found.leader === '' ? null : found.leader,
            term: found.term,
            last_index: found.lastIndex,
            committed: found.committed,
            applied: found.applied,
            voters: count('voter'),
            voters_wanted: found.votersWanted,
            learners: count('learner'),
            tolerates: found.tolerates,
            tolerates_now: found.toleratesNow < 0 ? null : found.toleratesNow,
            warnings: found.warnings.join('; '),
          },
          options.output,
        );
      });
    });
  return example(command, 'broker cluster status', 'broker cluster status --address 127.0.0.1:8081 -o json');
}

function addCommand(context: Context): Command {
  const command = withClient(new Command('add'))
    .description(
      'Admit a node before it starts, as a learner. A node that is started with --join needs no such thing. The instance is in node.json of its data directory.',
    )
    .argument('<node/instance>', 'node id and instance, such as n4/0123456789abcdef0123456789abcdef', parseInstance)
    .requiredOption('--raft <host:port>', 'where the others reach its Raft port', addressOf('--raft'))
    .requiredOption('--grpc <host:port>', 'where clients and the others reach its gRPC port', addressOf('--grpc'))
    .action(async (named: Named, options: ClientOptions & { raft: string; grpc: string }) => {
      await withConnection(context, options, async (connection) => {
        const { raft: raftAddress, grpc: grpcAddress } = options;
        await tell(context, await connection.addMember({ ...named, raftAddress, grpcAddress }), options);
      });
    });
  return example(
    command,
    'broker cluster add n4/0123456789abcdef0123456789abcdef --raft 10.0.0.4:12000 --grpc 10.0.0.4:8081',
  );
}

function removeCommand(context: Context): Command {
  const command = withClient(new Command('remove'))
    .description(
      'Take a node out, for ever: it cannot come back with its data directory. With /INSTANCE only if it is still that one. Refused where the voters that are left and heard would be no majority.',
    )
    .argument('<node>', 'node id, or node/instance', parseNode)
    .option('--force', 'also where the rest would have no live majority', false)
    .action(async ({ nodeId, instanceId }: Named, options: ClientOptions & { force: boolean }) => {
      await withConnection(context, options, async (connection) => {
        await tell(context, await connection.removeMember(nodeId, instanceId, options.force), options);
      });
    });
  return example(
    command,
    'broker cluster remove n3',
    'broker cluster remove n3/0123456789abcdef0123456789abcdef -o json',
  );
}

function leaveCommand(context: Context): Command {
  const command = withClient(new Command('leave'))
    .description(
      'Take the node at the address out of its cluster: it hands over the lead if it has it, and is removed. Its process may be stopped then.',
    )
    .option('--force', 'also where the rest would have no live majority', false)
    .action(async (options: ClientOptions & { force: boolean }) => {
      if (addressesOf(context, options).length > 1) {
        throw usageError(
          'leave takes one address: that of the node which is to leave',
          'name it with --address HOST:PORT',
        );
      }
      await withConnection(context, options, async (connection) => {
        const { nodeId, members } = await handOver(context, connection);
        const self = members.find((member) => member.nodeId === nodeId);
        if (self === undefined) throw new CliError(EXIT.failed, `${nodeId} is no member of the cluster any more`);
        await tell(context, await connection.removeMember(nodeId, self.instanceId, options.force), options);
        await context.notes.line(
          `broker: ${nodeId} is no member any more; stop its process, and delete its data directory`,
        );
      });
    });
  return example(command, 'broker cluster leave --address 127.0.0.1:8081');
}

function promoteCommand(context: Context): Command {
  const command = withClient(new Command('promote'))
    .description('Make a learner a voter. Learners become voters by themselves while there are fewer than raft.voters.')
    .argument('<node>', 'node id', parseNodeId)
    .action(async (nodeId: string, options: ClientOptions) => {
      await withConnection(context, options, async (connection) => {
        await tell(context, await connection.promoteMember(nodeId), options);
      });
    });
  return example(command, 'broker cluster promote n4');
}

function transferCommand(context: Context): Command {
  const command = withClient(new Command('transfer-leader'))
    .description('Hand the lead to another voter, without an election and without a failed call.')
    .argument('[node]', 'node id; default: the voter that has most of the log', parseNodeId)
    .action(async (nodeId: string | undefined, options: ClientOptions) => {
      await withConnection(context, options, async (connection) => {
        await tell(context, await connection.transferLeader(nodeId ?? ''), options);
      });
    });
  return example(command, 'broker cluster transfer-leader', 'broker cluster transfer-leader n2');
}

/** Another node leads, or the node that answers is the only one that could. */
async function handOver(context: Context, connection: Connection): Promise<ClusterMembers> {
  let found = await connection.members();
  const leads = ({ leader, nodeId }: ClusterMembers): boolean => leader === '' || leader === nodeId;
  const hasOthers = found.members.some(({ role, nodeId }) => role === 'voter' && nodeId !== found.nodeId);
  if (found.leader !== found.nodeId || !hasOthers) return found;
  await connection.transferLeader('');
  for (let waited = 0; leads(found) && waited < WATCH_MAX_MS && !context.interrupt.aborted; waited += WATCH_MS) {
    await sleep(WATCH_MS, undefined, { signal: context.interrupt }).catch(() => undefined);
    found = await connection.members();
  }
  return found;
}

/** The members behind a change. */
async function tell(context: Context, { members, leader }: ClusterChange, options: ClientOptions): Promise<void> {
  const lastIndex = Math.max(-1, ...members.map(({ matchIndex }) => matchIndex));
  const rows = members.map((member) => ({ ...toRow(member, lastIndex), leader: member.nodeId === leader }));
  await context.out.rows(rows, COLUMNS, options.output);
}

function leaderOf({ members }: ClusterMembers): { readonly lastIndex: number } | null {
  const leader = members.find(({ isLeader, matchIndex }) => isLeader && matchIndex >= 0);
  return leader === undefined ? null : { lastIndex: leader.matchIndex };
}

/** Members as Raft knows them, with gossip's word beside it; then those whom only gossip knows. */
function memberRows(found: ClusterMembers): Row[] {
  const { lastIndex } = leaderOf(found) ?? { lastIndex: found.lastIndex };
  if (found.seen.length === 0) return found.members.map((member) => toRow(member, lastIndex));
  const byNode = new Map(found.seen.map((seen) => [seen.nodeId, seen]));
  const members = found.members.map((member) => ({
    ...toRow(member, lastIndex),
    ...gossipColumns(byNode.get(member.nodeId)),
  }));
  const others = found.seen
    .filter(({ isMember }) => !isMember)
    .map((seen) => ({
      node: seen.nodeId,
      role: null,
      leader: false,
      heard: null,
      behind: null,
      open: null,
      grpc: seen.grpcAddress,
      raft: seen.raftAddress,
      instance: seen.instanceId,
      ...gossipColumns(seen),
    }));
  return [...members, ...others];
}

function gossipColumns(seen: ClusterMembers['seen'][number] | undefined): Row {
  return {
    gossip: seen === undefined || seen.status === '' ? null : seen.status,
    gossip_address: seen?.gossipAddress ?? '',
    difference: seen?.difference ?? '',
  };
}

/** What only the leader knows is null where it did not say. */
function toRow(member: ClusterMember, lastIndex: number): Row {
  const isKnown = member.matchIndex >= 0;
  return {
    node: member.nodeId,
    role: member.role,
    leader: member.isLeader,
    heard: isKnown ? member.isActive : null,
    behind: isKnown ? Math.max(0, lastIndex - member.matchIndex) : null,
    open: member.openAllotments,
    grpc: member.grpcAddress,
    raft: member.raftAddress,
    instance: member.instanceId,
  };
}

interface Named {
  readonly nodeId: string;
  readonly instanceId: string;
}

const NODE = new RegExp(`^(${NAME_PATTERN})(?:/([0-9a-f]{32}))?$`);

function parseNode(text: string): Named {
  const [, nodeId, instanceId] = NODE.exec(text) ?? [];
  if (nodeId !== undefined) return { nodeId, instanceId: instanceId ?? '' };
  throw usageError(`${text}: must be a node id, or node/instance, as \`broker cluster members\` shows them`);
}

function parseInstance(text: string): Named {
  const named = parseNode(text);
  if (named.instanceId !== '') return named;
  throw usageError(`${text}: must be NODE/INSTANCE; the instance is in node.json of the node's data directory`);
}

function parseNodeId(text: string): string {
  const named = parseNode(text);
  if (named.instanceId === '') return named.nodeId;
  throw usageError(`${text}: must be a node id, without an instance`);
}

const addressOf =
  (name: string) =>
  (text: string): string => {
    parseAddress(text, name);
    return text;
  };
