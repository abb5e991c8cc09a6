import assert from 'node:assert/strict';
import { constants, PerformanceObserver } from 'node:perf_hooks';
import { it } from 'node:test';
import { ReceivedGarbage } from '../../src/grpc/received-garbage.ts';

it('memory that was received is collected young, before V8 marks its whole heap for it', async () => {
  const kinds = { minor: 0, major: 0 };
  const observer = new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) {
      const { kind } = (entry as unknown as { detail: { kind: number } }).detail;
      if (kind === constants.NODE_PERFORMANCE_GC_MINOR) kinds.minor += 1;
      if (kind === constants.NODE_PERFORMANCE_GC_MAJOR) kinds.major += 1;
    }
  });
  observer.observe({ entryTypes: ['gc'] });
  const receive = async (bytes: number, garbage: ReceivedGarbage | null): Promise<void> => {
    for (let rest = bytes; rest > 0; rest -= 64 << 10) {
      garbage?.note(new ArrayBuffer(64 << 10).byteLength);
      if (rest % (1 << 20) === 0) await new Promise(setImmediate);
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  };
  await receive(1 << 30, new ReceivedGarbage());
  observer.disconnect();
  assert.ok(kinds.minor >= 60, `${kinds.minor} young collections`);
  assert.ok(kinds.major <= kinds.minor / 4, `${kinds.major} of the whole heap, ${kinds.minor} young ones`);
  assert.equal((globalThis as { gc?: unknown }).gc, undefined, 'the door stays shut for everything else');
});
