/** Fetches a message by its id, and one that is not there. */
import { ClientError, connect } from 'broker';

await using client = connect(process.env.BROKER_ADDRESS);
const message = await client.fetch('sensor.1', 1);
console.log(`${message.id} ${message.text} ${new Date(message.publishedAt).toISOString()}`);
await client.fetch('sensor.1', 1_000_000).catch((error: unknown) => {
  console.log(error instanceof ClientError ? error.reason : error);
});
