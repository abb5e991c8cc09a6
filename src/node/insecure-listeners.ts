import { StartError } from '../storage/start-error.ts';
import type { Log } from '../telemetry/log.ts';
import type { MetricsRegistry } from '../telemetry/metrics.ts';

/** A listener that strangers can use or read. */
export interface InsecureListener {
  /** Such as grpc.listen. */
  readonly key: string;
  /** HOST:PORT */
  readonly address: string;
  /** What is to be set. */
  readonly remedy: string;
}

/** Between two warnings, in ms. */
const TELL_MS = 3_600_000;

/** What strangers can reach of this node: refused, or allowed and told loudly. */
export class InsecureListeners {
  readonly #log: Log;
  #listeners: readonly InsecureListener[] = [];
  #timer: NodeJS.Timeout | null = null;

  constructor(log: Log) {
    this.#log = log;
  }

  /** Before they are opened, and when what keeps strangers out has changed. StartError unless they are allowed; if so the log says it, now and once an hour. */
  judge(listeners: readonly InsecureListener[], isAllowed: boolean): void {
    this.#listeners = listeners;
    if (listeners.length === 0) return;
    if (!isAllowed) {
      const words = listeners.map(({ key, address, remedy }) => `${key} ${address} (${remedy})`).join(', ');
      throw new StartError(
        'LISTENER_INSECURE',
        `what listens beyond this machine needs TLS and authentication, or insecure, and these are open to strangers: ${words}`,
      );
    }
    this.#tell();
    this.#timer ??= setInterval(() => this.#tell(), TELL_MS);
  }

  /** For `broker status`. */
  get warnings(): string[] {
    return this.#listeners.map(
      ({ key, address, remedy }) => `insecure: strangers who reach ${key} ${address} can use or read it: ${remedy}`,
    );
  }

  addTo(metrics: MetricsRegistry): void {
    const help = 'Ports beyond loopback without TLS and authentication, which insecure allows.';
    metrics.addGauge('broker_insecure_listeners', help, {}, () => this.#listeners.length);
  }

  stop(): void {
    if (this.#timer !== null) clearInterval(this.#timer);
  }

  #tell(): void {
    for (const { key, address, remedy } of this.#listeners) {
      this.#log.warn('INSECURE: strangers who reach this port can use or read it', { setting: key, address, remedy });
    }
  }
}
