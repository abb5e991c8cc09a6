import { Worker } from 'node:worker_threads';
import { BrokerError } from '../base/errors.ts';
import type { FromVerifyThread, LogView, Progress, ToVerifyThread, VerifyTask } from './types.ts';

/** It makes little that lives: V8 need not let it grow. */
const YOUNG_MB = 8;

/** One verification: its thread, and the answers of the log that it asks for. */
export class VerifyRun {
  readonly #worker: Worker;
  readonly #log: LogView;
  readonly #onProgress: (progress: Progress) => void;
  readonly #ended = Promise.withResolvers<Progress>();

  constructor(task: VerifyTask, log: LogView, onProgress: (progress: Progress) => void) {
    this.#log = log;
    this.#onProgress = onProgress;
    const extension = import.meta.url.endsWith('.ts') ? 'ts' : 'js';
    this.#worker = new Worker(new URL(`./verify-thread.${extension}`, import.meta.url), {
      workerData: task,
      name: 'verify',
      resourceLimits: { maxYoungGenerationSizeMb: YOUNG_MB },
    });
    this.#worker.on('message', (message: FromVerifyThread) => void this.#handle(message));
    this.#worker.on('error', (error) => this.#ended.reject(error));
    this.#worker.on('exit', (code) => this.#ended.reject(new Error(`the thread ended with code ${code}`)));
    // Whoever cancels need not listen.
    this.#ended.promise.catch(() => 'told');
  }

  /** The last progress. Rejects with BrokerError if the store does not answer, or it was cancelled (CANCELLED is the caller's to know); else a defect. */
  get ended(): Promise<Progress> {
    return this.#ended.promise;
  }

  /** Resolves when the thread has ended, at whatever it was. */
  async cancel(): Promise<void> {
    await this.#worker.terminate();
  }

  async #handle(message: FromVerifyThread): Promise<void> {
    switch (message.kind) {
      case 'progress':
        this.#onProgress(message.progress);
        return;
      case 'done':
        this.#ended.resolve(message.progress);
        return;
      case 'failed':
        this.#ended.reject(
          message.reason === null ? new Error(message.message) : new BrokerError(message.reason, message.message),
        );
        return;
      case 'page': {
        const { reports, next } = await this.#log.page(message.scope, message.cursor, message.limit);
        this.#answer({ kind: 'page', token: message.token, reports, next });
        return;
      }
      case 'now':
        this.#answer({ kind: 'now', token: message.token, reports: await this.#log.now(message.subjects) });
        return;
    }
  }

  #answer(message: ToVerifyThread): void {
    this.#worker.postMessage(message);
  }
}
