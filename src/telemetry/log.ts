import { isatty } from 'node:tty';
import pino from 'pino';
import { prettyFactory } from 'pino-pretty';
import { Redactor } from '../base/redactor.ts';
import { LogSink } from './log-sink.ts';
import { RecentLines } from './recent-lines.ts';

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

/** A line on its way from a thread to the main thread; plain data, so that it can be posted. */
export interface ThreadLine {
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
  forward(thread: string, line: ThreadLine): void;
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
  const format = prettyFactory({ colorize, ignore: 'pid', translateTime: 'SYS:HH:MM:ss.l', singleLine: true });
  return { write: (line) => target.write(String(format(line))) };
}

/** The log of a worker thread: hands lines to `send`, which posts them to the main thread. Lines under `level` are not even made. */
export function createThreadLog(level: LogLevel, send: (line: ThreadLine) => void): Log {
  const least = LOG_LEVELS.indexOf(level);
  const at =
    (name: LogLevel) =>
    (message: string, fields: LogFields = {}): void => {
      if (LOG_LEVELS.indexOf(name) >= least) send({ kind: 'log', level: name, message, fields: plain(fields) });
    };
  return { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') };
}

/** What a port can carry and a log line should hold: no objects, errors as their stack. */
function plain(fields: LogFields): ThreadLine['fields'] {
  const result: Record<string, string | number | boolean> = {};
  for (const [name, value] of Object.entries(fields)) {
    if (typeof value === 'number' || typeof value === 'boolean') result[name] = value;
    else if (value instanceof Error) result[name] = value.stack ?? value.message;
    else result[name] = typeof value === 'object' ? JSON.stringify(value) : String(value);
  }
  return result;
}

function nothing(): void {
  // Nothing to flush, or nobody to tell.
}
