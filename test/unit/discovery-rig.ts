import { type Endpoint, formatEndpoint } from '../../src/base/endpoint.ts';
import type { DiscoveryEvents } from '../../src/discovery/types.ts';
import { until } from '../support/until.ts';

/** What a source has said. */
export class Heard implements DiscoveryEvents {
  /** Each time's, with commas between. */
  readonly seeds: string[] = [];
  readonly problems: string[] = [];

  onSeeds(seeds: readonly Endpoint[]): void {
    this.seeds.push(seeds.map(formatEndpoint).join());
  }

  onProblem(reason: string): void {
    this.problems.push(reason);
  }

  get last(): string {
    return this.seeds.at(-1) ?? '';
  }

  hasSeeds(expected: string): Promise<void> {
    return until(
      () => this.last === expected,
      () => `seeds ${JSON.stringify(this.seeds)}, problems ${JSON.stringify(this.problems)}`,
    );
  }

  hasProblem(expected: RegExp): Promise<void> {
    return until(
      () => this.problems.some((problem) => expected.test(problem)),
      () => `problems ${JSON.stringify(this.problems)}, seeds ${JSON.stringify(this.seeds)}`,
    );
  }
}
