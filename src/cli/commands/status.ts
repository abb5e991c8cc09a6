import { Command } from 'commander';
import type { ClusterMembers, NodeStatus } from '../../client/index.ts';
import type { Context } from '../context.ts';
import { CliError } from '../failure.ts';
import { type ClientOptions, example, withClient, withConnection } from '../options.ts';
import { ageOf, bytesOf, compact, counted, millis, percent, safe } from '../top/text.ts';

export function statusCommand(context: Context): Command {
  const command = withClient(new Command('status'))
    .description(
      'A broker in one look: who it is, its cluster, its store, what it is busy with, and what needs attention. Exit code 0 also with warnings; `broker check` judges.',
    )
    .action(async (options: ClientOptions) => {
      await withConnection(context, options, async (connection) => {
        const [status, members] = await Promise.all([
          connection.status(),
          // Why it is not known is no reason to tell nothing.
          connection.members().catch((error: unknown) => {
            if (error instanceof CliError) return null;
            throw error;
          }),
        ]);
        if (options.output === 'json') await context.out.json(toJson(status, members));
        else await context.out.line(statusText(status, members));
      });
    });
  return example(command, 'broker status', 'broker status -o json');
}

function toJson(status: NodeStatus, members: ClusterMembers | null): Record<string, unknown> {
  const count = (role: string): number | null =>
    members === null ? null : members.members.filter((member) => member.role === role).length;
  return {
    ...status,
    voters: count('voter'),
    learners: count('learner'),
    tolerates: members?.tolerates ?? null,
    toleratesNow: members === null || members.toleratesNow < 0 ? null : members.toleratesNow,
    warnings: warningsOf(status, members),
  };
}

/** Of the node and of its cluster, each once. */
function warningsOf(status: NodeStatus, members: ClusterMembers | null): string[] {
  const ofCluster = status.role === 'alone' ? [] : (members?.warnings ?? []);
  const own = status.warnings.filter((warning) => !(warning.startsWith('no leader') && ofCluster.length > 0));
  return [...new Set([...own, ...ofCluster])];
}

export function statusText(status: NodeStatus, members: ClusterMembers | null): string {
  const { subjects, subjectsMax, producers, producersMax } = status;
  const lines: [string, string][] = [
    ['node', `${safe(status.nodeId)}, version ${safe(status.version)}, up ${ageOf(status.uptimeMs)}`],
    ['cluster', clusterOf(status, members)],
    ['ready', status.ready ? 'yes' : `no: ${status.notReady.join('; ')}`],
    ['store', storeOf(status)],
    ['disk', `${bytesOf(status.diskFreeBytes)} free of ${bytesOf(status.diskBytes)}`],
    ['subjects', usedOf(subjects, subjectsMax)],
    ['producers', usedOf(producers, producersMax)],
    ['shards', status.resize === '' ? String(status.shards) : `${status.shards}, ${status.resize}`],
    [
      'clients',
      `${counted(status.connections, 'connection', compact)}, ${counted(status.subscriptions, 'subscription', compact)}`,
    ],
    ['in', `${counted(status.messagesInPerSecond, 'message', compact)}/s, ${bytesOf(status.bytesInPerSecond)}/s`],
    ['out', `${counted(status.messagesOutPerSecond, 'message', compact)}/s, ${bytesOf(status.bytesOutPerSecond)}/s`],
    ['p99', `publish ${msOf(status.publishP99Ms)}, durable write ${msOf(status.storeWriteP99Ms)}`],
    ['busy', `main thread ${percent(status.mainUtilization)}, cores ${percent(status.cpuUtilization)}`],
    [
      'raft',
      `term ${status.raftTerm}, applied ${status.raftApplied}, ${counted(status.openAllotments, 'allotment')} open`,
    ],
  ];
  const warnings = warningsOf(status, members);
  lines.push(['warnings', warnings.length === 0 ? 'none' : String(warnings.length)]);
  const width = Math.max(...lines.map(([name]) => name.length));
  return [
    ...lines.map(([name, text]) => `${name.padEnd(width)}  ${text}`),
    ...warnings.map((warning) => `! ${safe(warning)}`),
  ].join('\n');
}

function clusterOf({ cluster, role, leader, nodeId }: NodeStatus, members: ClusterMembers | null): string {
  const name = safe(cluster);
  if (role === 'alone') return `${name}, alone: no other node has its messages`;
  const led = leader === '' ? 'no leader is known' : leader === nodeId ? 'leads' : `leader ${safe(leader)}`;
  const standing = role === 'leader' ? led : `${role}, ${led}`;
  if (members === null) return `${name}, ${standing}`;
  const voters = members.members.filter((member) => member.role === 'voter').length;
  const now = members.toleratesNow;
  const left = now === members.tolerates || now < 0 ? '' : `, ${now} from here on`;
  return `${name}, ${standing}; ${counted(voters, 'voter')}, of which ${members.tolerates} may fail${left}`;
}

function storeOf({ store, durability, storeBytes, storeSegments, damaged }: NodeStatus): string {
  const size = store === 'embedded' ? `, ${bytesOf(storeBytes)} in ${counted(storeSegments, 'segment')}` : '';
  return `${store}, ${durability}${size}${damaged > 0 ? `, ${counted(damaged, 'read')} met damage` : ''}`;
}

function usedOf(part: number, max: number): string {
  return `${part.toLocaleString('en-US')} of ${max.toLocaleString('en-US')} (${percent(max > 0 ? part / max : 0)})`;
}

function msOf(ms: number): string {
  return ms === 0 ? '-' : `${millis(ms)} ms`;
}
