import { buffer } from 'node:stream/consumers';
import { Command } from 'commander';
import type { Connection, PublishInput } from '../connection.ts';
import type { Context } from '../context.ts';
import { usageError } from '../failure.ts';
import { linesOf } from '../lines.ts';
import { type ClientOptions, example, withClient, withConnection } from '../options.ts';
import { type Header, parseExpire, parseHeader, parsePositive } from '../parse.ts';

interface PublishOptions extends ClientOptions {
  readonly lines?: true;
  readonly header: readonly Header[];
  readonly expire: number;
  readonly producer?: string;
  readonly sequence?: number;
  readonly inFlight: number;
}

const IN_FLIGHT_MAX = 1_000;

export function publishCommand(context: Context): Command {
  const command = withClient(new Command('publish'))
    .description(
      'Publish one message, or one for each line of the input; prints the ids once the messages are durable.',
    )
    .argument('<subject>', 'such as orders.eu')
    .argument('[body]', 'the body; - or nothing reads it from the input')
    .option('--lines', 'each line of the input is a message (without its line break)')
    .option('--header <key=value>', 'a header; may be repeated', collectHeader, [])
    .option('--expire <duration>', 'whole seconds after which a message is gone, such as 10s', parseExpire, 0)
    .option('--producer <id>', 'producer id: a repeat of the same sequence is stored once')
    .option('--sequence <n>', 'first sequence of this producer, from 1; counts up with each line', (text: string) =>
      parsePositive(text, '--sequence'),
    )
    .option(
      '--in-flight <n>',
      'with --lines: messages on their way at one time; more than 1 gives up their order',
      parseInFlight,
      1,
    )
    .action(async (subject: string, body: string | undefined, options: PublishOptions) => {
      check(body, options, context);
      await withConnection(context, options, (connection) => publish(context, connection, subject, body, options));
    });
  return example(command, "broker publish orders.eu 'two apples'", 'seq 1000 | broker publish numbers --lines -o json');
}

function collectHeader(text: string, before: readonly Header[]): readonly Header[] {
  return [...before, parseHeader(text)];
}

function parseInFlight(text: string): number {
  const value = parsePositive(text, '--in-flight');
  if (value > IN_FLIGHT_MAX) throw usageError(`--in-flight ${text}: must be at most ${IN_FLIGHT_MAX}`);
  return value;
}

function check(body: string | undefined, options: PublishOptions, context: Context): void {
  const fromInput = body === undefined || body === '-';
  if (options.lines === true && !fromInput) throw usageError('--lines reads the input: leave the body out');
  if ((options.producer === undefined) !== (options.sequence === undefined)) {
    throw usageError('--producer and --sequence go together');
  }
  if (body === undefined && options.lines !== true && context.stdin.isTTY === true) {
    throw usageError('no body', "give one: broker publish SUBJECT 'BODY', or - to type it and end with Ctrl-D");
  }
}

async function publish(
  context: Context,
  connection: Connection,
  subject: string,
  body: string | undefined,
  options: PublishOptions,
): Promise<void> {
  const makeInput = (bytes: Uint8Array, index: number): PublishInput => ({
    subject,
    body: bytes,
    options: {
      headers: options.header,
      expirationSeconds: options.expire,
      producer:
        options.producer === undefined
          ? undefined
          : { id: options.producer, sequence: (options.sequence ?? 1) + index },
    },
  });
  const report = async (id: number): Promise<void> => {
    if (options.output === 'json') await context.out.json({ id, subject });
    else await context.out.line(String(id));
  };
  if (options.lines === true) {
    await publishLines(context, {
      inFlight: options.inFlight,
      report,
      send: (line, index) => connection.publish(makeInput(line, index)),
    });
    return;
  }
  const bytes = body === undefined || body === '-' ? await buffer(context.stdin) : Buffer.from(body);
  await report(await connection.publish(makeInput(bytes, 0)));
}

interface LineSender {
  readonly inFlight: number;
  readonly send: (line: Uint8Array, index: number) => Promise<number>;
  readonly report: (id: number) => Promise<void>;
}

/**
 * Ids are printed in the order of the lines, each as soon as it and those before it are there, whether or not there is more input yet.
 * Stops at the first line that fails; those before it are published.
 */
async function publishLines(context: Context, sender: LineSender): Promise<void> {
  const waiting: { readonly call: Promise<number>; readonly printed: Promise<void> }[] = [];
  const progress = new Progress(context);
  let sent = 0;
  let last = Promise.resolve();
  const print = async (before: Promise<void>, call: Promise<number>): Promise<void> => {
    await before;
    await sender.report(await call);
    await progress.count();
  };
  try {
    for await (const line of linesOf(context.stdin)) {
      if (context.interrupt.aborted) break;
      const call = sender.send(line, sent);
      call.catch(() => undefined); // Its failure is met when its turn comes; until then it is not unhandled.
      last = print(last, call);
      last.catch(() => context.stdin.destroy()); // What failed waits for no more input.
      waiting.push({ call, printed: last });
      sent += 1;
      if (waiting.length >= sender.inFlight) await waiting.shift()?.printed;
    }
    await last;
  } catch (error) {
    // An input that was ended because of a failure fails as well; the failure itself is what has to be told.
    const [outcome] = await Promise.allSettled([last]);
    await Promise.allSettled(waiting.map(({ call }) => call));
    const cause: unknown = outcome.status === 'rejected' ? outcome.reason : error;
    if (cause instanceof Error) cause.message = `line ${progress.done + 1}: ${cause.message}`;
    throw cause;
  } finally {
    await progress.end();
  }
}

const PROGRESS_INTERVAL_MS = 200;

/** A line on the terminal that is written over; nothing when stderr is a file or a pipe. */
class Progress {
  readonly #context: Context;
  readonly #began: number;
  #shownAt: number;
  done = 0;

  constructor(context: Context) {
    this.#context = context;
    this.#began = context.now();
    this.#shownAt = this.#began;
  }

  async count(): Promise<void> {
    this.done += 1;
    if (this.#context.notes.isTerminal && this.#context.now() - this.#shownAt >= PROGRESS_INTERVAL_MS)
      await this.#show();
  }

  async end(): Promise<void> {
    if (!this.#context.notes.isTerminal || this.done === 0) return;
    await this.#show();
    await this.#context.notes.write('\n');
  }

  async #show(): Promise<void> {
    this.#shownAt = this.#context.now();
    const seconds = Math.max(0.001, (this.#shownAt - this.#began) / 1_000);
    const rate = Math.round(this.done / seconds).toLocaleString('en-US');
    await this.#context.notes.write(`\r${this.done.toLocaleString('en-US')} published, ${rate}/s `);
  }
}
