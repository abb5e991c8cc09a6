/** The server as a process: its configuration, its signals, and its end. What it is made of, node/broker.ts puts together. */
import { logVerbosity, setLogVerbosity } from '@grpc/grpc-js';
import { Redactor } from './base/redactor.ts';
import { LiveSettings } from './config/live-settings.ts';
import type { LoadedConfig } from './config/load.ts';
import { Broker } from './node/broker.ts';
import { EXIT } from './node/exit-codes.ts';
import { watchSignals } from './node/watch-signals.ts';
import { StartError } from './storage/start-error.ts';
import { createLogger, type Logger } from './telemetry/log.ts';
import { SettingsService } from './workers/admin/settings-service.ts';
import { StartStopped } from './workers/membership/membership.ts';

/** What the process may still hold open when all is closed. */
const LINGER_MS = 1_000;

/** Runs a broker until it is told to stop; resolves with the exit code. */
export async function serve(loaded: LoadedConfig): Promise<number> {
  const { config } = loaded;
  // grpc-js writes to stderr by itself what we log with its reason.
  setLogVerbosity(logVerbosity.NONE);
  const redactor = new Redactor(loaded.secrets);
  const logger = createLogger({ ...config.log, destination: 'stdout', redactor });
  for (const warning of loaded.warnings) logger.warn('a setting needs attention', { warning });
  const stopping = new AbortController();
  const settings = new SettingsService(new LiveSettings(loaded), logger, redactor);
  settings.register('log.level', ({ log }) => logger.setLevel(log.level));
  const broker = new Broker(config, logger, settings, stopping.signal, (code) => {
    process.exitCode = code;
    setTimeout(() => process.exit(code), 0);
  });
  const reload = (): void => {
    settings.reload();
    broker.access?.reload();
  };
  const signals = watchSignals(logger, { reload, exit: () => process.exit(EXIT.ok) });
  // A broken invariant of this thread; what rejects without a listener comes here too.
  process.on('uncaughtException', (error) => broker.die('main_thread_failed', error));
  void signals.first.then(() => stopping.abort(new StartStopped()));
  try {
    await broker.start();
  } catch (error) {
    if (error instanceof StartStopped) return await endOf(broker, logger, EXIT.ok);
    if (!(error instanceof StartError)) {
      // A disk that fails, or a defect: what is open by now cannot be trusted to close, and must not keep the process.
      const detail = error instanceof Error ? (error.stack ?? error.message) : String(error);
      logger.error('the broker could not start', { reason: 'start_failed', error: detail });
      logger.flush();
      process.exit(EXIT.startFailed);
    }
    logger.error(error.message, { reason: error.code });
    return await endOf(broker, logger, EXIT.startFailed);
  }
  await signals.first;
  await broker.drain();
  return await endOf(broker, logger, EXIT.ok);
}

async function endOf(broker: Broker, logger: Logger, code: number): Promise<number> {
  await broker.stop();
  if (broker.died !== null) return broker.died;
  if (code === EXIT.ok) logger.info('stopped');
  logger.flush();
  if (broker.isStuck) process.exit(code);
  // A question to a DNS server that does not answer, of a connection that was closed, would keep the process for half a minute.
  setTimeout(() => process.exit(code), LINGER_MS).unref();
  return code;
}
