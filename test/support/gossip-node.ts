/**
 * A node that does nothing but gossip, as a process: `node gossip-node.ts OPTIONS`, with OPTIONS as JSON (ProgramOptions). It reads commands from standard input,
 * one JSON object a line, and answers each with its number; what it hears meanwhile are lines without a number. It ends with its input.
 */
import { createInterface } from 'node:readline';
import { serfCodec } from '../../src/net/gossip/serf-codec.ts';
import { MetricsRegistry } from '../../src/telemetry/metrics.ts';
import { GossipAgent } from '../../src/workers/gossip/gossip-agent.ts';
import { addGossipMetrics } from '../../src/workers/gossip/gossip-metrics.ts';
import type { GossipProfile } from '../../src/workers/gossip/types.ts';

export interface ProgramOptions {
  readonly node: string;
  readonly listen: { readonly host: string; readonly port: number };
  readonly advertise?: { readonly host: string; readonly port: number };
  /** Base64, primary first. */
  readonly keys?: readonly string[];
  readonly label?: string;
  readonly profile?: GossipProfile;
  readonly tags?: Readonly<Record<string, string>>;
  readonly cluster?: string;
  readonly dataDirectory?: string;
  readonly nameRetryMs?: number;
  /** What queries are answered with, by name. */
  readonly answers?: Readonly<Record<string, string>>;
}

/** `block`: the thread does nothing else for so long. */
export type Command =
  | { readonly do: 'members' | 'figures' | 'usage' | 'metrics' | 'stop' }
  | { readonly do: 'join'; readonly seeds: readonly string[] }
  | { readonly do: 'event'; readonly name: string; readonly payload: string }
  | { readonly do: 'query'; readonly name: string; readonly payload: string; readonly timeoutMs?: number }
  | {
      readonly do: 'keys';
      readonly operation: 'install-key' | 'use-key' | 'remove-key' | 'list-keys';
      readonly key?: string;
    }
  | { readonly do: 'tags'; readonly tags: Readonly<Record<string, string>> }
  | { readonly do: 'leave'; readonly withinMs: number }
  | { readonly do: 'block'; readonly ms: number };

type Told =
  | { readonly told: 'ready'; readonly port: number }
  | { readonly told: 'event'; readonly name: string; readonly payload: string }
  | { readonly told: 'log'; readonly level: string; readonly message: string; readonly fields: unknown };

const options = JSON.parse(process.argv[2] ?? '{}') as ProgramOptions;

function say(line: Told | { readonly id: number; readonly result?: unknown; readonly error?: string }): void {
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

const at =
  (level: string) =>
  (message: string, fields: Readonly<Record<string, unknown>> = {}): void =>
    say({ told: 'log', level, message, fields });

const agent: GossipAgent = new GossipAgent({
  node: options.node,
  listen: options.listen,
  advertise: options.advertise ?? null,
  keys: (options.keys ?? []).map((key) => Buffer.from(key, 'base64')),
  label: options.label ?? '',
  profile: options.profile ?? 'local',
  tags: options.tags ?? {},
  clusterName: options.cluster ?? 'test',
  dataDirectory: options.dataDirectory ?? null,
  ...(options.nameRetryMs === undefined ? {} : { nameRetryMs: options.nameRetryMs }),
  log: { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') },
  onUserEvent: ({ name, payload }) => say({ told: 'event', name, payload: Buffer.from(payload).toString() }),
  onQuery: ({ name, handle }) => {
    const answer = options.answers?.[name];
    if (answer !== undefined) agent.respond(handle, Buffer.from(answer));
  },
});

async function carryOut(command: Command): Promise<unknown> {
  switch (command.do) {
    case 'members':
      return agent.view();
    case 'figures':
      return agent.figures;
    case 'usage':
      return { cpu: process.cpuUsage(), rss: process.memoryUsage.rss(), atMs: performance.now() };
    case 'metrics': {
      const registry = new MetricsRegistry({ processMetrics: false });
      addGossipMetrics(registry, agent);
      return registry.text();
    }
    case 'join':
      return agent.join(command.seeds);
    case 'event':
      return agent.event(command.name, Buffer.from(command.payload), false);
    case 'query':
      return ask((watcher) =>
        agent.query(
          {
            name: command.name,
            payload: Buffer.from(command.payload),
            wantsAck: true,
            timeoutMs: command.timeoutMs ?? 0,
          },
          watcher,
        ),
      );
    case 'keys':
      return askKeys(command.operation, command.key);
    case 'tags':
      return agent.setTags(command.tags);
    case 'leave':
      return agent.leave(command.withinMs);
    case 'stop':
      return agent.stop();
    case 'block':
      for (const until = performance.now() + command.ms; performance.now() < until; );
      return null;
  }
}

interface Answers {
  readonly acks: string[];
  readonly responses: Record<string, string>;
}

type Watcher = Parameters<GossipAgent['query']>[1];

function ask(start: (watcher: Watcher) => ReturnType<GossipAgent['query']>, decode = text): Promise<Answers> {
  return new Promise((resolve, reject) => {
    const answers: Answers = { acks: [], responses: {} };
    const started = start({
      onAck: (node) => answers.acks.push(node),
      onResponse: (node, payload) => {
        answers.responses[node] = decode(payload);
      },
      onDone: () => resolve(answers),
    });
    if ('refusal' in started) reject(new Error(started.refusal));
  });
}

function askKeys(operation: 'install-key' | 'use-key' | 'remove-key' | 'list-keys', key?: string): Promise<Answers> {
  const bytes = key === undefined ? null : Buffer.from(key, 'base64');
  return ask(
    (watcher) => agent.queryKeys(operation, bytes, watcher),
    (payload) => {
      const answer = serfCodec.decode(payload);
      if (answer?.kind !== 'keyResponse') return 'not an answer about keys';
      return answer.isDone ? `done ${answer.keys.join(',')}` : answer.message;
    },
  );
}

function text(payload: Uint8Array): string {
  return Buffer.from(payload).toString();
}

async function main(): Promise<void> {
  await agent.start();
  say({ told: 'ready', port: agent.address?.port ?? 0 });
  for await (const line of createInterface({ input: process.stdin })) {
    const { id, ...command } = JSON.parse(line) as Command & { readonly id: number };
    carryOut(command).then(
      (result) => say({ id, result }),
      (error: unknown) => say({ id, error: String(error) }),
    );
  }
  process.exit(0);
}

main().catch((error: unknown) => {
  process.stderr.write(`${error instanceof Error ? error.stack : String(error)}\n`);
  process.exit(1);
});
