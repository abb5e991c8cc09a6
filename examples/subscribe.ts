/** Prints ten messages from the beginning. Broken connections and restarts of the broker in between go unnoticed: each id comes once. */
import { connect } from 'broker';

await using client = connect(process.env.BROKER_ADDRESS);
let left = 10;
for await (const message of client.subscribe('sensor.1', { start: 'earliest' })) {
  console.log(`${message.subject} ${message.id} ${message.text}`);
  if (--left === 0) break;
}
