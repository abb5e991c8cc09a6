/**
 * The way of publishing that users of ajhexer/broker know: a unary call for each message, waited for. That program acknowledges before anything is stored, so a broker
 * of ours takes its calls, durable, with the load that its own people use: many calls in flight on a few connections.
 */
import { type LoadMode, type LoadResult, runLoad } from '../lib/load.ts';
import { parseRates } from '../lib/rates.ts';
import { PREFIX, PUBLISH_PATH } from '../lib/scenario.ts';
import { startBrokerTarget } from '../lib/targets.ts';
import type { Peer, PeerResult, RunningPeer } from './peer.ts';

const IN_FLIGHT = 256;
const CONNECTIONS = 4;
const SUBJECTS = 16;
const WARM_UP_MS = 1_000;
const DURATION_MS = 4_000;

function resultOf({ callsPerSecond, latency, cost }: LoadResult): PeerResult {
  return { messagesPerSecond: callsPerSecond, p99Ms: latency.p99Ms, cost };
}

async function start(): Promise<RunningPeer> {
  const { address, pid, stop } = await startBrokerTarget({ shards: null, cpuProfileDir: null, flags: [] });
  const load = async (bodyBytes: number, mode: LoadMode): Promise<PeerResult> =>
    resultOf(
      await runLoad({
        address,
        pid,
        path: PUBLISH_PATH,
        frames: { kind: 'publish', subjects: SUBJECTS, prefix: PREFIX, bodyBytes },
        mode,
        connections: CONNECTIONS,
        inFlight: IN_FLIGHT,
        warmupMs: WARM_UP_MS,
        durationMs: DURATION_MS,
        threads: 1,
        client: 'raw',
      }),
    );
  return {
    pid,
    publish: ({ bodyBytes }) => load(bodyBytes, { kind: 'closed' }),
    publishAt: ({ bodyBytes }, messagesPerSecond) => {
      const schedule = parseRates(String(Math.round(messagesPerSecond)), {
        warmupMs: WARM_UP_MS,
        durationMs: DURATION_MS,
      });
      return load(bodyBytes, { kind: 'open', schedule });
    },
    read: () => Promise.resolve(null),
    stop,
  };
}

export const predecessor: Peer = {
  name: 'predecessor',
  setting: `its way of publishing, on a broker of ours: a unary Publish for each message, ${IN_FLIGHT} at a time on ${CONNECTIONS} connections, ${DURATION_MS / 1_000} s whatever --messages says; durable`,
  version: () => 'this tree',
  install: () => undefined,
  start,
};
