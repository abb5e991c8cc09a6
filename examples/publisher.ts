/** Publishes 100,000 messages: gathered to batches, held back when the broker is busy, stored once whatever happens on the way. */
import { connect } from 'broker';

await using client = connect(process.env.BROKER_ADDRESS);
await using publisher = client.publisher();
for (let n = 1; n <= 100_000; n++) {
  while (!publisher.tryPublish(`sensor.${n % 10}`, `measurement ${n}`)) await publisher.ready();
}
await publisher.flush();
console.log(`${publisher.stats.stored} messages in ${publisher.stats.batches} batches`);
