/** Nodes of a cluster, each with a clock that the test sets. Needs requireTool(t, 'cc'). */
import type { Machine } from '../support/cluster.ts';
import { FakeClock } from '../support/fake-clock.ts';
import type { Equipment } from './cluster-campaign.ts';

export class FakeClocks implements Equipment {
  readonly machines: readonly Machine[];
  /** By the index of the node. */
  readonly clocks: readonly FakeClock[];

  constructor(nodes: number) {
    this.clocks = Array.from({ length: nodes }, () => new FakeClock());
    this.machines = this.clocks.map(({ env }) => ({ env }));
  }

  [Symbol.dispose](): void {
    for (const clock of this.clocks) clock[Symbol.dispose]();
  }
}
