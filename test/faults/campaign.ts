import type { FuzzSettings } from './fuzz-campaign.ts';

/** What `npm run faults` can run: long forms of the tests in this folder. */
export type CampaignStore = 'postgres' | 'cassandra';

export interface CampaignOptions {
  readonly runs: number;
  readonly seed: number;
  /** The first run, from 0, of a campaign whose runs do not depend on each other: to go on where one was stopped. Default: 0. */
  readonly first?: number;
  /** Of campaigns on clusters that need no network of their own. Default: postgres. */
  readonly store?: CampaignStore;
  /** Of `fuzz` alone. */
  readonly fuzz?: FuzzSettings;
  /** One of the campaign's `schedules`. */
  readonly schedule?: string;
  /** The brokers' syncs only say that they were done: the campaign must find that messages are lost. */
  readonly isUnsynced?: boolean;
  /** One line about what happens now. */
  readonly onProgress: (done: number, total: number, text: string) => void;
}

/** One line of the table at the end: words and numbers by column name. */
export type CampaignRow = Readonly<Record<string, string | number>>;

export interface CampaignResult {
  readonly rows: readonly CampaignRow[];
  /** Empty if every promise was kept. */
  readonly violations: readonly string[];
  /** What else the reader should know, such as sites that were never reached. */
  readonly notes: readonly string[];
}

export interface Campaign {
  readonly name: string;
  readonly about: string;
  readonly defaultRuns: number;
  /** It takes `store`. */
  readonly hasStores?: boolean;
  /** It takes `first`. */
  readonly goesOn?: boolean;
  /** Values of `--schedule`: another order of events than its own. */
  readonly schedules?: readonly string[];
  /** It takes `isUnsynced`. */
  readonly canBeUnsynced?: boolean;
  run(options: CampaignOptions): Promise<CampaignResult>;
}
