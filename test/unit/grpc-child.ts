/** A server in a process of its own: says its address, and on every line from its standard input how many streams its engine has got. */
import { createInterface } from 'node:readline';
import { createGrpcServer } from '../../src/grpc/server.ts';
import { DOOR, REFUSING_ADMIN, REFUSING_CLUSTER, receiveBudget, TestEngine } from './grpc-rig.ts';

const engine = new TestEngine((request, _deadlineMs, done) => {
  if (request.toString() === 'defect') throw new Error('a defect of the engine');
  done(null, request.subarray(0, 16));
});
const server = createGrpcServer({
  engine,
  admin: REFUSING_ADMIN,
  cluster: REFUSING_CLUSTER,
  limits: DOOR,
  maxConnectionAgeMs: 0,
  receiving: receiveBudget(),
});
await server.listen({ host: '127.0.0.1', port: 0 });
process.stdout.write(`${server.address}\n`);
for await (const _line of createInterface({ input: process.stdin })) process.stdout.write(`${engine.streams.length}\n`);
process.exit(0);
