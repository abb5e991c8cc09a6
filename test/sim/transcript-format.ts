import { decodeConfigChange } from '../../src/raft/config-change.ts';
import { type ConfigState, ENTRY_CONFIG, type Entry, type Message, type Ready } from '../../src/raft/messages.ts';
import type { PeerStatus, RaftStatus } from '../../src/raft/status.ts';

/** Core records as lines of a transcript. Positions are written index/term. */

export function formatEntry(entry: Entry): string {
  const at = `${entry.index}/${entry.term}`;
  if (entry.type === ENTRY_CONFIG) {
    const { kind, node } = decodeConfigChange(entry.data);
    return `${at} <${kind} ${node}>`;
  }
  return entry.data.length === 0 ? `${at} ""` : `${at} "${new TextDecoder().decode(entry.data)}"`;
}

export function formatConfig(config: ConfigState): string {
  return `voters=[${config.voters.join(' ')}] learners=[${config.learners.join(' ')}]`;
}

export function formatMessage(message: Message): string {
  return `${message.type} ${message.from}>${message.to} term=${message.term}${details(message)}`;
}

function details(message: Message): string {
  const { index, logTerm, commit, context } = message;
  switch (message.type) {
    case 'append': {
      const entries = message.entries.map(formatEntry).join(', ');
      return ` after=${index}/${logTerm} commit=${commit} [${entries}]`;
    }
    case 'append-response':
      return message.reject ? ` refused=${index} hint=${message.rejectHint}/${logTerm}` : ` match=${index}`;
    case 'heartbeat':
      return ` commit=${commit}${context > 0 ? ` round=${context}` : ''}`;
    case 'heartbeat-response':
      return context > 0 ? ` round=${context}` : '';
    case 'vote':
    case 'pre-vote':
      return ` last=${index}/${logTerm}${message.force ? ' forced' : ''}`;
    case 'vote-response':
    case 'pre-vote-response':
      return message.reject ? ` refused commit=${index}/${logTerm}` : ' granted';
    case 'snapshot': {
      const snapshot = message.snapshot;
      return snapshot === null ? '' : ` at=${snapshot.index}/${snapshot.term} ${formatConfig(snapshot.config)}`;
    }
    case 'read-index':
      return ` read=${context}`;
    case 'read-index-response':
      return ` read=${context} index=${index}`;
    case 'timeout-now':
      return '';
  }
}

export function formatReady(ready: Ready): string[] {
  const lines: string[] = [];
  const { softState, hardState, snapshot } = ready;
  if (softState !== null) {
    lines.push(`${softState.role}${softState.leader === '' ? '' : `, leader ${softState.leader}`}`);
  }
  if (hardState !== null) {
    lines.push(`hard state: term=${hardState.term} vote=${hardState.vote || '-'} commit=${hardState.commit}`);
  }
  if (snapshot !== null) {
    lines.push(`install snapshot ${snapshot.index}/${snapshot.term} ${formatConfig(snapshot.config)}`);
  }
  lines.push(...ready.entries.map((entry) => `write ${formatEntry(entry)}`));
  lines.push(...ready.messages.map((message) => `send ${formatMessage(message)}`));
  lines.push(...ready.messagesAfterPersist.map((message) => `send after write ${formatMessage(message)}`));
  lines.push(...ready.committedEntries.map((entry) => `apply ${formatEntry(entry)}`));
  lines.push(...ready.readStates.map((read) => `read ${read.context} at ${read.index}`));
  return lines;
}

export function formatState(status: RaftStatus): string {
  const leader = status.leader === '' ? '-' : status.leader;
  const marks = `commit=${status.committed} applied=${status.applied} last=${status.lastIndex}`;
  return `${status.id}: ${status.role} term=${status.term} leader=${leader} ${marks} ${formatConfig(status.config)}`;
}

export function formatPeer(peer: PeerStatus): string {
  const flags = [
    peer.isLearner ? ' learner' : '',
    peer.isBlocked ? ' blocked' : '',
    peer.isActive ? '' : ' inactive',
    peer.inflight > 0 ? ` inflight=${peer.inflight}` : '',
    peer.pendingSnapshot > 0 ? ` snapshot=${peer.pendingSnapshot}` : '',
  ];
  return `${peer.node}: ${peer.state} match=${peer.match} next=${peer.next}${flags.join('')}`;
}
