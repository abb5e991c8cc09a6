/** Many more lookups than a store works on at a time, beside publishes and looks at readiness. */
import assert from 'node:assert/strict';
import { type BrokerProcess, httpStatus } from './broker.ts';
import { BrokerClient, CallError } from './client.ts';

const BATCHES = 400;
const LOOKUPS = 3_000;
const BODY = Buffer.alloc(200, 'b');

/**
 * Stores 400 batches, ends the broker so that none of them is in its memory, and asks for all of them several times at once. `onCold` runs before that.
 * Throws unless every lookup is answered or told when to come again, every publish is acknowledged, and the broker stays ready.
 */
export async function lookupStorm(broker: BrokerProcess, onCold: () => void = () => undefined): Promise<void> {
  const writer = new BrokerClient(broker.address, { timeoutMs: 60_000 });
  for (let i = 0; i < BATCHES; i++) await writer.publish({ subject: 'storm.kept', body: BODY });
  await broker.restart();
  await broker.ready();
  await writer.fetch('storm.kept', 1);
  onCold();
  const readers = Array.from({ length: 4 }, () => new BrokerClient(broker.address, { timeoutMs: 60_000 }));
  let open = LOOKUPS;
  const tally = { answered: 0, refused: 0, published: 0 };
  const lookups = Array.from({ length: LOOKUPS }, async (_, i) => {
    try {
      const id = 1 + (i % BATCHES);
      const message = await (readers[i % readers.length] as BrokerClient).fetch('storm.kept', id);
      assert.equal(message.id, id);
      tally.answered += 1;
    } catch (error) {
      assert.ok(error instanceof CallError, String(error));
      assert.equal(error.statusName, 'RESOURCE_EXHAUSTED', error.message);
      assert.ok((error.retryAfterMs ?? 0) > 0, error.message);
      tally.refused += 1;
    } finally {
      open -= 1;
    }
  });
  const publishes = async (): Promise<void> => {
    while (open > 0) {
      await writer.publish({ subject: 'storm.beside', body: BODY });
      tally.published += 1;
    }
  };
  const looks = async (): Promise<void> => {
    while (open > 0) {
      // This process is busy with its own calls for seconds: that is nothing of the broker.
      assert.equal(await httpStatus(broker.adminAddress, '/readyz', 60_000), 200, broker.logs);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  };
  await Promise.all([...lookups, publishes(), looks()]);
  assert.ok(tally.answered >= BATCHES && tally.published > 0, JSON.stringify(tally));
}
