/** What a bench counts: messages, bytes, latencies. One of it for all its clients, which share a thread. */
import { build, type Histogram } from 'hdr-histogram-js';
import type { Row } from '../output.ts';

/** 10 minutes in microseconds. */
const LATENCY_US_MAX = 600_000_000;

export class Figures {
  readonly #latencies: Histogram = build({
    lowestDiscernibleValue: 1,
    highestTrackableValue: LATENCY_US_MAX,
    numberOfSignificantValueDigits: 3,
  });
  #beganAt = 0;
  #endedAt = 0;
  messages = 0;
  bytes = 0;

  begin(nowMs: number): void {
    this.#beganAt = nowMs;
  }

  end(nowMs: number): void {
    this.#endedAt = nowMs;
  }

  /** `latencyMs` of each of the messages; null where it means nothing. */
  count(messages: number, bytes: number, latencyMs: number | null): void {
    this.messages += messages;
    this.bytes += bytes;
    if (latencyMs === null) return;
    const us = Math.min(LATENCY_US_MAX, Math.max(1, Math.round(latencyMs * 1_000)));
    this.#latencies.recordValueWithCount(us, messages);
  }

  /** Messages a second until now. */
  rate(nowMs: number): number {
    return Math.round(this.messages / Math.max(0.001, (nowMs - this.#beganAt) / 1_000));
  }

  summary(settings: Row): Row {
    const seconds = Math.max(0.001, (this.#endedAt - this.#beganAt) / 1_000);
    const base = {
      ...settings,
      messages: this.messages,
      seconds: round(seconds),
      messagesPerSecond: Math.round(this.messages / seconds),
      mibPerSecond: round(this.bytes / seconds / 2 ** 20),
    };
    if (this.#latencies.totalCount === 0) return base;
    const ms = (percentile: number): number => round(this.#latencies.getValueAtPercentile(percentile) / 1_000);
    return {
      ...base,
      latencyMsP50: ms(50),
      latencyMsP90: ms(90),
      latencyMsP99: ms(99),
      latencyMsP999: ms(99.9),
      latencyMsMax: round(this.#latencies.maxValue / 1_000),
    };
  }
}

function round(value: number): number {
  return Math.round(value * 1_000) / 1_000;
}
