/** The pure parts of the perf harness: schedules, correction, search, assertions, comparison, reports. */
import assert from 'node:assert/strict';
import { before, describe, it } from 'node:test';
import fc from 'fast-check';
import { AnswersRecorder, figuresWithin } from '../../perf/lib/answers.ts';
import { check, parseAssertion } from '../../perf/lib/assertions.ts';
import { generatorWarnings } from '../../perf/lib/bottleneck.ts';
import { changesOf, formatComparison } from '../../perf/lib/compare.ts';
import { formatProfiles, threadProfile } from '../../perf/lib/cpu-profile.ts';
import { findMax } from '../../perf/lib/find-max.ts';
import {
  corrected,
  loadHistograms,
  newHistogram,
  packHistogram,
  percentileText,
  record,
  summarize,
} from '../../perf/lib/histogram.ts';
import { renderHtml } from '../../perf/lib/html.ts';
import { readCommandLine, UsageError } from '../../perf/lib/options.ts';
import { renderPlot } from '../../perf/lib/plot.ts';
import { divide, dueAt, dueBy, parseRates } from '../../perf/lib/rates.ts';
import { type Figure, makeReport } from '../../perf/lib/report.ts';
import { recoveryMs } from '../../perf/lib/scenario-streams.ts';
import { bothEnds } from '../../perf/scenarios/soak.ts';

const TIMES = { warmupMs: 1_000, durationMs: 6_000 };

describe('perf: flags', () => {
  const read = (...argv: string[]) => readCommandLine(['stream', ...argv]).options({});

  it('numbers that nothing can be measured with are refused before anything runs', () => {
    const wrong = [
      ['--rounds', '0'],
      ['--rounds', '1.5'],
      ['--rounds', ''],
      ['--rounds', 'NaN'],
      ['--shards', '0'],
      ['--shards', '65'],
      ['--subjects', '0'],
      ['--streams', '0'],
      ['--connections', '0'],
      ['--threads', '0'],
      ['--in-flight', '0'],
      ['--messages', '0'],
      ['--batches', '0'],
      ['--frame', '0'],
      ['--frames-in-flight', '0'],
      ['--fill-mib', '0'],
      ['--duration', '0'],
      ['--warmup=-1'],
      ['--body=-1'],
      ['--find-max', '0'],
      ['--find-max', '0ms'],
      ['--find-max', '20'],
      ['--find-max', '20MiB'],
      ['--find-max', 'soon'],
    ];
    for (const argv of wrong) assert.throws(() => read(...argv), UsageError, argv.join(' '));
  });

  it('those that make sense are read in the units of the options', () => {
    const options = read(
      '--rounds',
      '1',
      '--duration',
      '0.5',
      '--warmup',
      '0',
      '--frame',
      '0.5e1',
      '--find-max',
      '1.5s',
    );
    const { rounds, durationMs, warmupMs, frameBytes, findMaxMs } = options;
    assert.deepEqual([rounds, durationMs, warmupMs, frameBytes, findMaxMs], [1, 500, 0, 5_120, 1_500]);
    assert.equal(read('--find-max', '500us').findMaxMs, 0.5);
    assert.equal(read('--body', '0').bodyBytes, 0);
  });
});

describe('perf: rates', () => {
  it('a constant rate, steps and a ramp make the calls that their area says', () => {
    assert.equal(dueBy(parseRates('1k', TIMES), 2_500), 2_500);
    const steps = parseRates('100,200,400', TIMES);
    assert.deepEqual(
      [1_000, 3_000, 5_000, 7_000, 8_000].map((ms) => dueBy(steps, ms)),
      [100, 300, 700, 1_500, 1_900],
    );
    const ramp = parseRates('100..700', TIMES);
    assert.deepEqual(
      [1_000, 4_000, 7_000, 8_000].map((ms) => dueBy(ramp, ms)),
      [100, 850, 2_500, 3_200],
    );
  });

  it('a call is due at the first instant at which it is counted', () => {
    const rate = fc.integer({ min: 1, max: 100_000 });
    const text = fc.oneof(
      rate.map(String),
      fc.array(rate, { minLength: 1, maxLength: 4 }).map((rates) => rates.join(',')),
      fc.tuple(rate, rate).map(([from, to]) => `${from}..${to}`),
    );
    fc.assert(
      fc.property(text, fc.integer({ min: 1, max: 20_000 }), fc.integer({ min: 1, max: 4 }), (rates, number, parts) => {
        const schedule = divide(parseRates(rates, TIMES), parts);
        const at = dueAt(schedule, number);
        assert.ok(dueBy(schedule, at + 1e-3) >= number, `${number} is counted when it is due`);
        if (at > 1) assert.ok(dueBy(schedule, at - 1) <= number, `${number} is not counted long before`);
        assert.ok(dueAt(schedule, number + 1) >= at);
      }),
    );
  });

  it('what is no rate is refused', () => {
    for (const text of ['', '0', '-5', 'fast', '1..2..3x', '5,,6'])
      assert.throws(() => parseRates(text, TIMES), /is no rate/, text);
  });
});

describe('perf: histograms', () => {
  before(loadHistograms);

  it('one stall of a closed loop hides few slow calls; the correction brings back those who would have come meanwhile', () => {
    const histogram = newHistogram();
    for (let call = 0; call < 999; call++) record(histogram, 1_000);
    record(histogram, 1_000_000);
    const packed = packHistogram(histogram);
    assert.ok(summarize([packed]).p99Ms < 1.1);
    const right = corrected([packed], 10);
    // 1 stall of 1,000 ms at a call every 10 ms: 99 more calls, waiting 990 to 10 ms.
    assert.equal(right.count, 1_099);
    assert.ok(right.p99Ms > 850 && right.p99Ms < 920, `${right.p99Ms}`);
    assert.ok(right.p50Ms < 1.1);
    assert.equal(corrected([packed], 2_000).count, 1_000);
    assert.match(percentileText([packed, packed]), /Value +Percentile +TotalCount[\s\S]*#\[Mean/);
  });
});

describe('perf: find-max', () => {
  const search = (limit: number, flaky: ReadonlySet<number> = new Set()) => {
    let tries = 0;
    return findMax<null>({
      startRate: 1_000,
      tolerance: 0.05,
      probesMax: 30,
      probe: (rate) => Promise.resolve({ isGood: rate <= limit && !flaky.has(tries++), result: null }),
    });
  };

  it('comes within the tolerance below any limit, from above and from below', async () => {
    for (const limit of [3, 970, 1_000, 1_001, 54_321, 3_000_000]) {
      const { best } = await search(limit);
      assert.ok(best !== null && best.rate <= limit && best.rate * 1.051 >= limit, `${limit}: ${best?.rate}`);
    }
  });

  it('one bad try of a good rate does not end the search below it', async () => {
    const { best } = await search(10_000, new Set([1, 4]));
    assert.ok(best !== null && best.rate * 1.051 >= 10_000, `${best?.rate}`);
  });

  it('says so when no rate is good, and ends', async () => {
    const { best, probes } = await search(0);
    assert.equal(best, null);
    assert.ok(probes.length <= 30);
  });
});

describe('perf: assertions', () => {
  const figures = new Map([
    ['p99', { value: 4.2, unit: 'ms' }],
    ['rate', { value: 120_000, unit: '1/s' }],
    ['rss', { value: 310, unit: 'MiB' }],
    ['ratio.bytes', { value: 0.55, unit: '' }],
    ['errors', { value: 0, unit: '' }],
  ]);
  for (const [text, isTrue] of [
    ['p99<5ms', true],
    ['p99 < 4200us', false],
    ['p99<=0.0042s', true],
    ['rate>=120k', true],
    ['rate>1M', false],
    ['rss<1GiB', true],
    ['rss<300MiB', false],
    ['ratio.bytes>=50%', true],
    ['errors==0', true],
    ['p99<5', false],
    ['rss<400', false],
    ['nothing<5', false],
  ] as const) {
    it(`${text} ${isTrue ? 'holds' : 'fails'}`, () =>
      assert.equal(check(parseAssertion(text), figures).isTrue, isTrue));
  }

  it('what is no assertion is refused', () => {
    for (const text of ['p99', 'p99<', 'p99<5parsecs', '<5', 'p99=5', 'p99<5ms extra']) {
      assert.throws(() => parseAssertion(text), /is no assertion/, text);
    }
  });
});

describe('perf: reports', () => {
  before(loadHistograms);
  const figure: Figure = { name: 'messages', key: 'rate', unit: '1/s', subject: [90, 110], baseline: [100, 200] };
  const finding = {
    scenario: 'unit',
    setting: 'a <b> & "c"',
    figures: [
      figure,
      { name: 'Only Ours (ms)', unit: 'ms', subject: [3], goal: { better: 'lower' as const, must: 2, aim: 1 } },
    ],
    notes: ['<script>alert(1)</script>'],
    plots: [
      {
        title: 'p < q',
        xLabel: 'x',
        yLabel: 'y',
        series: [
          {
            name: 's',
            points: [
              [1, 2],
              [2, 3],
            ] as const,
          },
          { name: 'nothing', points: [] },
        ],
      },
    ],
  };

  it('figures have keys, ratios of neighbouring rounds, and assertions on both', () => {
    const assertions = ['rate>=100', 'ratio.rate<1', 'only-ours-ms<1ms'].map(parseAssertion);
    const report = makeReport(finding, new Date(0), assertions);
    assert.deepEqual(
      report.assertions.map(({ isTrue }) => isTrue),
      [true, true, false],
    );
    assert.deepEqual(
      report.figures.map(({ verdict }) => verdict),
      [null, 'missed'],
    );
  });

  it('the page is one file that loads nothing, and what comes from outside is escaped', () => {
    const html = renderHtml(makeReport(finding, new Date(0), [parseAssertion('rate>1')]));
    assert.doesNotMatch(html, /<script|<link|src=|href=|https?:|@import|url\(/);
    assert.match(html, /a &lt;b&gt; &amp; &quot;c&quot;/);
    assert.match(html, /<svg [\s\S]*<polyline points="[\d., ]+"/);
    assert.match(html, /MISSED/);
  });

  it('the reports of a run are one page: what has a goal first, each with a link to its own part', () => {
    const one = makeReport(finding, new Date(0), []);
    const html = renderHtml(one, one);
    assert.doesNotMatch(html, /<script|<link|src=|https?:|@import|url\(/);
    assert.equal(html.match(/href="#s1"/g)?.length, one.figures.filter(({ goal }) => goal !== undefined).length);
    assert.equal(html.match(/<h1 id="s[01]">/g)?.length, 2);
    assert.equal(html.match(/<svg /g)?.length, 2 * one.plots.length);
  });

  it('a plot stays within its frame on every kind of axis, and leaves out what an axis cannot show', () => {
    for (const scale of ['linear', 'log', 'quantile'] as const) {
      const points = [
        [0, 0],
        [1, 0.5],
        [99, 7],
        [1e5, 3_000],
      ] as const;
      const svg = renderPlot({
        title: 't',
        xLabel: 'x',
        yLabel: 'y',
        xScale: scale,
        yScale: 'log',
        series: [{ name: 's', points }],
      });
      const drawn = /points="([^"]*)"/.exec(svg)?.[1]?.split(' ') ?? [];
      assert.equal(drawn.length, 3);
      for (const point of drawn) {
        const [x, y] = point.split(',').map(Number) as [number, number];
        assert.ok(x >= 64 && x <= 624 && y >= 34 && y <= 274, point);
      }
    }
    assert.equal(renderPlot({ title: 't', xLabel: 'x', yLabel: 'y', series: [{ name: 's', points: [] }] }), '');
  });

  it('compare tells a change from what the rounds differ by, and warns of other settings', () => {
    const report = (subject: number[], setting = 's') =>
      makeReport(
        { ...finding, setting, figures: [{ name: 'messages', key: 'rate', unit: '1/s', subject }] },
        new Date(0),
      );
    assert.deepEqual(changesOf(report([90, 110]), report([180, 220])), [
      { key: 'rate', factor: 2, isRatio: false, isClear: true },
    ]);
    assert.equal(changesOf(report([90, 110]), report([100, 130]))[0]?.isClear, false);
    assert.match(formatComparison(report([1]), report([2], 'other')), /DIFFERENT SETTINGS/);
    const ratios = makeReport(finding, new Date(0));
    assert.equal(changesOf(ratios, ratios)[0]?.isRatio, true);
  });

  it('a busy generator and a rate that was not kept are told', () => {
    const side = (generatorBusy: number, p99Ms: number, count = 1) => [{ generatorBusy, sendLag: { count, p99Ms } }];
    assert.deepEqual(generatorWarnings({ broker: side(0.5, 1) }), []);
    assert.match(
      generatorWarnings({ broker: side(0.99, 0, 0) }).join(),
      /THE GENERATOR WAS THE BOTTLENECK against broker/,
    );
    assert.match(
      generatorWarnings({ broker: side(0.2, 80) }).join(),
      /THE RATE WAS NOT KEPT against broker.*window or all slots/,
    );
  });

  it('recovery is the end of the last bad step; never, if the last is bad', () => {
    const timeline = (worstMs: number[], counts = worstMs.map(() => 1)) => ({
      timeline: { stepMs: 250, counts, worstMs },
    });
    assert.equal(recoveryMs(timeline([9, 9, 1, 1]), 5), 500);
    assert.equal(recoveryMs(timeline([1, 1]), 5), 0);
    assert.equal(recoveryMs(timeline([1, 0, 1], [1, 0, 1]), 5), 500);
    assert.equal(recoveryMs(timeline([1, 9]), 5), null);
  });

  it('both ends of a soak leave its warm-up out', () => {
    assert.deepEqual(bothEnds([99, 99, 1, 1, 5, 5, 5, 5, 2, 2]), { early: 1, late: 2 });
  });
});

describe('perf: answers within a stretch of time', () => {
  it('those count that were due or on their way within it; the longest gap is of one stream, also across the ends', () => {
    const recorder = new AnswersRecorder();
    recorder.begin(1_000);
    // Every 10 ms one of 4 ms on each of two streams, but on stream 1 nothing from 200 to 260 ms.
    for (let ms = 10; ms <= 1_000; ms += 10) {
      recorder.add(1_000 + ms, 0, 4);
      if (ms <= 200 || ms >= 260) recorder.add(1_000 + ms, 1, ms === 260 ? 54 : 4);
    }
    const parts = [recorder.result()];
    const quiet = figuresWithin(parts, [{ fromMs: 500, toMs: 600 }]);
    assert.deepEqual(quiet, { count: 22, p99Ms: 4, worstMs: 4, longestGapMs: 10 });
    const pause = figuresWithin(parts, [{ fromMs: 230, toMs: 240 }]);
    assert.deepEqual([pause.worstMs, pause.longestGapMs], [54, 60]);
    const both = figuresWithin(parts, [
      { fromMs: 230, toMs: 240 },
      { fromMs: 500, toMs: 600 },
    ]);
    assert.deepEqual([both.count, both.p99Ms, both.longestGapMs], [22 + pause.count, 54, 60]);
    assert.equal(figuresWithin(parts, [{ fromMs: 5_000, toMs: 6_000 }]).count, 0);
  });
});

it('a CPU profile becomes shares of the time in which the thread did something', () => {
  const node = (id: number, functionName: string, url: string) => ({
    id,
    callFrame: { functionName, url, lineNumber: 9 },
  });
  const nodes = [
    node(1, '(idle)', ''),
    node(2, 'copy', 'file:///x/src/workers/shard/shard-thread.ts'),
    node(3, '', 'file:///x/src/shm/ring.ts'),
    node(4, '(garbage collector)', ''),
  ];
  const { thread, busy, rows } = threadProfile({ nodes, samples: [1, 2, 2, 3, 1, 4, 1, 1] });
  assert.deepEqual([thread, busy], ['shard thread', 0.5]);
  assert.deepEqual(rows, [
    { place: 'copy shard/shard-thread.ts:10', share: 0.5 },
    { place: '(anonymous) shm/ring.ts:10', share: 0.25 },
    { place: '(garbage collector)', share: 0.25 },
  ]);
  assert.throws(() => formatProfiles('/nonexistent'), UsageError);
});
