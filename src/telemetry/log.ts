import { createRequire } from 'node:module';
import { isatty } from 'node:tty';
import pino from 'pino';
import type * as PinoPretty from 'pino-pretty';
import { Redactor } from '../base/redactor.ts';
import { LogSink } from './log-sink.ts';
import { RecentLines } from './recent-lines.ts';

const require = createRequire(import.meta.url);

export const LOG_LEVELS = ['debug', 'info', 'warn', 'error'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];
export type LogFormat = 'auto' | 'json' | 'pretty';
export type LogFields = Readonly<Record<string, unknown>>;

/** What every part logs through, on any thread. `message` is a constant sentence; what varies goes into `fields`. */
export interface Log {
  debug(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
}

/** A log that also takes what has to be written down. */
export interface AuditLog extends Log {
  /** Whatever the level of the log is: who may turn that up must not do things unseen thereby. */
  audit(level: LogLevel, message: string, fields: LogFields): void;
}

/** A log line of a thread, plain data, so that it can be posted: only the main thread writes. */
export interface LogLine {
  readonly kind: 'log';
  readonly level: LogLevel;
  readonly message: string;
  readonly fields: Readonly<Record<string, string | number | boolean>>;
}

export interface LineStream {
  write(line: string): unknown;
}

export interface LoggerOptions {
  readonly level: LogLevel;
  /** `auto`: pretty if the destination is a terminal. */
  readonly format: LogFormat;
  readonly destination: 'stdout' | 'stderr' | LineStream;
  /** Takes secrets out of every line, should they ever be in one. */
  readonly redactor?: Redactor;
}

/** The main thread's log: the only writer of the process. */
export interface Logger extends AuditLog {
  /** From now on, for the lines of all threads: they all come here. */
  setLevel(level: LogLevel): void;
  /** Writes a thread's line, with the thread's name. */
  forward(thread: string, line: LogLine): void;
  /** The newest lines that were written, as JSON. */
  readonly recent: RecentLines;
  /** Writes what is buffered, synchronously. Done at `exit` too; call it before any other end. */
  flush(): void;
}

export function createLogger({ level, format, destination, redactor = new Redactor([]) }: LoggerOptions): Logger {
  const sink =
    typeof destination === 'string'
      ? fileSink(destination === 'stdout' ? 1 : 2)
      : { stream: destination, terminal: false, flush: nothing };
  const pretty = format === 'pretty' || (format === 'auto' && sink.terminal);
  const stream = pretty ? prettyStream(sink.stream, sink.terminal) : sink.stream;
  const recent = new RecentLines();
  const write = (made: string): void => {
    const line = redactor.redact(made);
    recent.add(line);
    stream.write(line);
  };
  const ofLevel = (least: LogLevel): pino.Logger =>
    pino(
      {
        level: least,
        base: { pid: process.pid },
        timestamp: pino.stdTimeFunctions.isoTime,
        formatters: { level: (label) => ({ level: label }) },
      },
      { write },
    );
  const logger = ofLevel(level);
  const all = ofLevel('debug');
  const at =
    (name: LogLevel) =>
    (message: string, fields: LogFields = {}): void =>
      logger[name](fields, message);
  return {
    debug: at('debug'),
    info: at('info'),
    warn: at('warn'),
    error: at('error'),
    audit: (name, message, fields) => all[name]({ audit: true, ...fields }, message),
    setLevel: (least) => {
      logger.level = least;
    },
    forward: (thread, line) => logger[line.level]({ thread, ...line.fields }, line.message),
    recent,
    flush: sink.flush,
  };
}

/** Asynchronous, so that a slow reader of the pipe never blocks the event loop. */
function fileSink(descriptor: 1 | 2): { stream: LineStream; terminal: boolean; flush: () => void } {
  const stream = new LogSink(descriptor);
  process.once('exit', stream.flush);
  return { stream, terminal: isatty(descriptor), flush: stream.flush };
}

/** In-process and synchronous: no transport thread, nothing left behind at exit. */
function prettyStream(target: LineStream, colorize: boolean): LineStream {
  // Loaded where somebody looks at a terminal: it is thirty files.
  const { prettyFactory } = require('pino-pretty') as typeof PinoPretty;
  const format = prettyFactory({ colorize, ignore: 'pid', translateTime: 'SYS:HH:MM:ss.l', singleLine: true });
  return { write: (line) => target.write(String(format(line))) };
}

function nothing(): void {
  // Nothing to flush, or nobody to tell.
}
