/** Publishes one message and prints its id, which comes when the message is on disk. */
import { connect } from 'broker';

await using client = connect(process.env.BROKER_ADDRESS);
const id = await client.publish('orders.eu', 'two apples', { headers: { 'content-type': 'text/plain' } });
console.log(`orders.eu ${id}`);
