/** One trace over the nodes of a cluster: who took the message, who gave its ids, who delivered it. */
import assert from 'node:assert/strict';
import { after, it } from 'node:test';
import { context, trace } from '@opentelemetry/api';
import { connect } from '../../src/client/index.ts';
import { PostgresServer } from '../servers/postgres.ts';
import { Cluster, type ClusterNode } from '../support/cluster.ts';
import { OtlpReceiver, type ReceivedSpan } from '../support/otlp-receiver.ts';
import { registerTracing } from '../support/traced-program.ts';
import { until } from '../support/until.ts';

const server = await PostgresServer.start();
const receiver = await OtlpReceiver.listen();
const provider = registerTracing('test-program', receiver.endpoint);
const cluster = await Cluster.start({
  nodes: 2,
  storeFlags: server.brokerFlags(),
  flags: ['--tracing-endpoint', receiver.endpoint, '--tracing-ratio', '0', '--shards', '1'],
});

after(async () => {
  await cluster[Symbol.asyncDispose]();
  await provider.shutdown();
  await receiver[Symbol.asyncDispose]();
  await server.remove();
});

const nodesOf = (spans: readonly ReceivedSpan[], name: string): unknown[] =>
  spans.filter((span) => span.name === name).map((span) => span.attributes['broker.node']);

it('a publish to a follower: its ids are given by the leader, and the leader delivers it, in one trace', async () => {
  const leader = await cluster.untilLeader();
  const follower = cluster.nodes.find((node) => node !== leader) as ClusterNode;
  await using producer = connect(follower.address);
  await using consumer = connect(leader.address);
  const subscription = consumer.subscribe('over.nodes', { start: 'earliest' });
  await subscription.started;
  const seen: number[] = [];
  const consuming = (async () => {
    for await (const { id } of subscription) seen.push(id);
  })();

  const tracer = trace.getTracer('test');
  const traces: string[] = [];
  const spansOf = (traceId: string): ReceivedSpan[] => receiver.spans.filter((span) => span.traceId === traceId);
  // The leader may have read a batch from the database before it came: then nothing was expected of it, so there may have to be some.
  const isWhole = (traceId: string): boolean =>
    ['publish', 'log', 'lead', 'store', 'close', 'deliver'].every((name) =>
      spansOf(traceId).some((span) => span.name === name),
    );
  await until(
    async () => {
      const span = tracer.startSpan('send');
      await context.with(trace.setSpan(context.active(), span), () => producer.publish('over.nodes', 'x'));
      span.end();
      traces.push(span.spanContext().traceId);
      return traces.some(isWhole);
    },
    () => traces.map((traceId) => spansOf(traceId).map(({ name }) => name)),
  );
  const spans = spansOf(traces.find(isWhole) as string);
  assert.deepEqual(nodesOf(spans, 'publish'), [follower.id]);
  assert.deepEqual(nodesOf(spans, 'log'), [follower.id]);
  assert.deepEqual(nodesOf(spans, 'lead'), [leader.id]);
  assert.deepEqual(nodesOf(spans, 'deliver'), [leader.id]);
  const span = (name: string): ReceivedSpan => spans.find((each) => each.name === name) as ReceivedSpan;
  assert.equal(span('lead').parentSpanId, span('ids').spanId);
  assert.equal(span('lead').attributes['broker.peer'], follower.id);
  assert.equal(span('log').attributes['broker.log.leader'], false);
  assert.equal(span('deliver').parentSpanId, span('publish').spanId);
  assert.equal(span('deliver').attributes['broker.peer'], follower.id);
  await consumer.close();
  await consuming;
  assert.equal(seen[0], 1);
});
