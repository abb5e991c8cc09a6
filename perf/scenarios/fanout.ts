/** One publisher to many `Subscribe` streams against bare server streams that one loop feeds. */
import { generatorWarnings } from '../lib/bottleneck.ts';
import { type FanoutTask, runFanout } from '../lib/fanout.ts';
import { deliveryBytes } from '../lib/frames.ts';
import { formatNumber } from '../lib/report.ts';
import {
  alternate,
  errorNotes,
  PUBLISH_PATH,
  type Scenario,
  STREAM_PATH,
  SUBSCRIBE_PATH,
  volumePlots,
  withServers,
} from '../lib/scenario.ts';

const SUBJECT = 'perf.fanout';
/** Messages that a publisher may be ahead of the slowest subscriber. */
const WINDOW = 2_000;

export const fanout: Scenario = {
  name: 'fanout',
  about: '1 publisher to 20 Subscribe streams, against 20 bare server streams fed from one loop',
  defaults: { inFlight: 256 },
  async run(options, progress) {
    const { bodyBytes, streams, connections, client, inFlight, warmupMs, durationMs } = options;
    const name = Buffer.from(`${SUBJECT}.0`);
    const common = { client, connections, streams, warmupMs, durationMs };
    const answerBytes = deliveryBytes(bodyBytes, name.toString(), 100_000);
    return withServers(options, { answerBytes, streams }, async ({ broker, echo }) => {
      const subject: FanoutTask = {
        ...common,
        address: broker.address,
        subscribe: { path: SUBSCRIBE_PATH, request: Buffer.from([0x0a, name.length, ...name]) },
        publish: {
          path: PUBLISH_PATH,
          frames: { kind: 'publish', subjects: 1, prefix: SUBJECT, bodyBytes },
          inFlight,
          window: WINDOW,
        },
      };
      const baseline: FanoutTask = {
        ...common,
        address: echo.address,
        subscribe: { path: STREAM_PATH, request: Buffer.alloc(0) },
        publish: null,
      };
      const results = await alternate(options.rounds, progress, {
        subject: () => runFanout(broker.pid, subject),
        baseline: () => runFanout(echo.pid, baseline),
        show: (result) => `${formatNumber(result.deliveriesPerSecond)}/s`,
      });
      const of = (pick: (result: (typeof results.subject)[number]) => number) => ({
        subject: results.subject.map(pick),
        baseline: results.baseline.map(pick),
      });
      const sides = { broker: results.subject, 'bare server': results.baseline };
      return {
        scenario: 'fanout',
        setting: `1 publisher (${inFlight} in flight) to ${streams} streams on ${connections} connections, ${bodyBytes} B bodies`,
        figures: [
          {
            name: 'deliveries',
            key: 'rate',
            unit: '1/s',
            ...of((it) => it.deliveriesPerSecond),
            goal: { better: 'higher', must: 0.6, aim: 0.85 },
          },
          { name: 'published', unit: '1/s', subject: results.subject.map((it) => it.published / it.seconds) },
          { name: 'main-thread CPU a delivery', unit: 'us', ...of((it) => it.cost.mainMicrosPerCall) },
          { name: 'server CPU a delivery', key: 'cpu', unit: 'us', ...of((it) => it.cost.totalMicrosPerCall) },
          { name: 'slowest stream / fastest', unit: '', ...of((it) => it.slowest / it.fastest) },
          { name: 'generator busy', key: 'generator', unit: '', ...of((it) => it.generatorBusy) },
          { name: 'RSS', key: 'rss', unit: 'MiB', ...of((it) => it.cost.rssBytes / 2 ** 20) },
        ],
        notes: [...errorNotes([...results.subject, ...results.baseline]), ...generatorWarnings(sides)],
        plots: volumePlots(sides, 'deliveries/s'),
      };
    });
  },
};
