/** Publishes with a sequence of its own, as a program would that keeps its place in a file: run again, it is answered with the same id. */
import { connect } from 'broker';

await using client = connect(process.env.BROKER_ADDRESS);
for (let tries = 1; tries <= 3; tries++) {
  const id = await client.publish('invoices', 'invoice 4711', { producer: { id: 'billing', sequence: 1 } });
  console.log(`try ${tries}: id ${id}`);
}
