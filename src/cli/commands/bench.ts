import { Command } from 'commander';
import { type Client, ClientError } from '../../client/index.ts';
import { Figures } from '../bench/figures.ts';
import { withProgress } from '../bench/progress.ts';
import { benchPublish } from '../bench/publish.ts';
import { benchFetch, benchSubscribe } from '../bench/read.ts';
import { clientOf, explainConnected } from '../client-connection.ts';
import type { Context } from '../context.ts';
import { usageError } from '../failure.ts';
import { addressesOf, type ClientOptions, example, withClient } from '../options.ts';
import type { Row } from '../output.ts';
import { parsePositive, parseStart } from '../parse.ts';
import { tlsOf } from '../tls.ts';
import { tokenOf } from '../token.ts';

interface BenchOptions extends ClientOptions {
  readonly subject: string;
  readonly msgs: number;
  readonly clients: number;
  /** `--no-progress` sets it to false. */
  readonly progress: boolean;
}

const CLIENTS_MAX = 1_000;
const SIZE_MAX = 1024 * 1024;
const BATCH_MAX = 10_000;

export function benchCommand(context: Context): Command {
  const command = new Command('bench').description('Measure a broker from this machine: throughput and latencies.');
  return command.addCommand(publishBench(context)).addCommand(subscribeBench(context)).addCommand(fetchBench(context));
}

function withBench(command: Command): Command {
  return withClient(command)
    .option('--subject <name>', 'subject to use', 'bench')
    .option('--msgs <n>', 'messages', limited('--msgs', Number.MAX_SAFE_INTEGER), 100_000)
    .option('--clients <n>', 'clients at a time', limited('--clients', CLIENTS_MAX), 1)
    .option('--no-progress', 'no progress bar');
}

function limited(name: string, max: number): (text: string) => number {
  return (text) => {
    const value = parsePositive(text, name);
    if (value > max) throw usageError(`${name} ${text}: must be at most ${max}`);
    return value;
  };
}

interface PublishBenchOptions extends BenchOptions {
  readonly size: number;
  readonly batch: number;
  readonly inFlight: number;
  readonly throughput: number;
  readonly multisubject?: true;
}

function publishBench(context: Context): Command {
  const command = withBench(new Command('publish'))
    .description(
      'Publish messages in batches, each client over a connection of its own; latency is until they are durable.',
    )
    .option('--size <bytes>', 'size of a body', limited('--size', SIZE_MAX), 128)
    .option('--batch <n>', 'messages that are handed over together', limited('--batch', BATCH_MAX), 100)
    .option('--in-flight <n>', 'batches of a client without an answer', limited('--in-flight', BATCH_MAX), 64)
    .option('--throughput <n>', 'messages a second in all, instead of as many as go', limited('--throughput', 1e9), 0)
    .option('--multisubject', 'a subject for each client: NAME.0, NAME.1, …')
    .action(async (options: PublishBenchOptions) => {
      const { subject, msgs, size, clients, batch, inFlight, throughput } = options;
      const load = { subject, messages: msgs, size, clients, batch, inFlight, throughput };
      await runBench(context, options, { bench: 'publish', subject, clients, size, batch }, (client, figures) =>
        benchPublish(client, { ...load, isMultiSubject: options.multisubject === true }, figures, context.interrupt),
      );
    });
  return example(command, 'broker bench publish --subject bench --msgs 100000 --size 256 --clients 2 --batch 250');
}

function subscribeBench(context: Context): Command {
  const command = withBench(new Command('subscribe'))
    .description(
      'Receive messages; every client gets all of them. There is no --size, --batch or --throughput: messages come as they were ' +
        'published, in the batches and as fast as the broker sends them. Shape the load with `broker bench publish`, and receive it --from new.',
    )
    .option('--from <start>', 'new, earliest, an id, a time or how long ago, as in `broker subscribe`', 'earliest')
    .action(async (options: BenchOptions & { readonly from: string }) => {
      const { subject, msgs, clients } = options;
      const start = parseStart(options.from, context.now());
      await runBench(context, options, { bench: 'subscribe', subject, clients }, (client, figures) =>
        benchSubscribe(client, { subject, messages: msgs, clients, start }, figures, context.interrupt),
      );
    });
  return example(command, 'broker bench subscribe --subject bench --msgs 100000');
}

function fetchBench(context: Context): Command {
  const command = withBench(new Command('fetch'))
    .description(
      'Fetch single messages at random ids; each client has one call on its way. There is no --size or --batch: a message has the size ' +
        'that it was published with, and a call fetches one.',
    )
    .option('--throughput <n>', 'fetches a second in all, instead of as many as go', limited('--throughput', 1e9), 0)
    .action(async (options: BenchOptions & { readonly throughput: number }) => {
      const { subject, msgs, clients, throughput } = options;
      await runBench(context, options, { bench: 'fetch', subject, clients }, (client, figures) =>
        benchFetch(client, { subject, messages: msgs, clients, throughput }, figures, context.interrupt),
      );
    });
  return example(command, 'broker bench fetch --subject bench --msgs 10000 --clients 16');
}

async function runBench(
  context: Context,
  options: BenchOptions,
  settings: Row,
  work: (client: Client, figures: Figures) => Promise<void>,
): Promise<void> {
  const addresses = addressesOf(context, options);
  const tls = tlsOf(context.environment, options, addresses);
  const token = tokenOf(context.environment, options);
  const client = clientOf(addresses, {
    timeoutMs: options.timeout,
    tenant: options.tenant,
    tls,
    token,
    failFast: true,
  });
  const figures = new Figures();
  const total = options.msgs * (settings.bench === 'subscribe' ? options.clients : 1);
  try {
    // An address where nobody is should be told before anything waits for it.
    await client.status({ signal: context.interrupt });
    figures.begin(performance.now());
    await withProgress(context, { figures, total, isShown: options.progress }, () => work(client, figures));
    figures.end(performance.now());
    await context.out.record(figures.summary(settings), options.output);
  } catch (error) {
    throw error instanceof ClientError ? await explainConnected(error, { addresses, tls }) : error;
  } finally {
    await client.close();
  }
}
