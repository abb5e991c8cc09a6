/** What a command may use of the world around it. Tests hand in their own. */
import type { Readable } from 'node:stream';
import type { TlsOptions } from '../client/index.ts';
import type { Environment } from '../config/environment.ts';
import type { LoadedConfig } from '../config/load.ts';
import type { CopyStore } from '../copy/types.ts';
import type { Recovery } from '../recovery/types.ts';
import type { Connection } from './connection.ts';
import type { Output } from './output.ts';

export interface Context {
  readonly environment: Environment;
  readonly stdin: Readable & { readonly isTTY?: boolean; setRawMode?(isRaw: boolean): unknown };
  readonly out: Output;
  /** Progress and remarks; never results. */
  readonly notes: Output;
  /** Aborted at Ctrl-C or SIGTERM. */
  readonly interrupt: AbortSignal;
  /** Runs the server until it has stopped; resolves with the exit code. */
  readonly serve: (loaded: LoadedConfig) => Promise<number>;
  /** Moves the messages of a broker that does not run. */
  readonly copyStore: CopyStore;
  /** Backs up, restores, recovers and verifies data directories that nobody runs on. */
  readonly recovery: Recovery;
  readonly connect: (options: ConnectOptions) => Connection;
  /** ms since 1970 */
  readonly now: () => number;
}

export interface ConnectOptions {
  /** HOST:PORT each, perhaps with https:// in front: nodes of one cluster. */
  readonly addresses: readonly string[];
  /** Undefined: the broker's default. */
  readonly tenant?: string | undefined;
  /** Undefined: as the addresses say, else clear text. */
  readonly tls?: TlsOptions | undefined;
  /** Undefined: none. */
  readonly token?: string | undefined;
  /** Deadline of each call, in ms. Streams have none. */
  readonly timeoutMs: number;
  /** Cancels the calls that are open. */
  readonly interrupt: AbortSignal;
}
