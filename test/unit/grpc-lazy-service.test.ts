import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';
import {
  Client,
  credentials,
  type handleServerStreamingCall,
  type handleUnaryCall,
  Server,
  ServerCredentials,
} from '@grpc/grpc-js';
import { addLazyService, type ServiceLibrary } from '../../src/grpc/lazy-service.ts';
import { ROOT } from '../support/source-tree.ts';

const UNARY = '/x.Service/One';
const STREAM = '/x.Service/Many';

/** Answers what it is sent, backwards, as a library with names of its own would. */
const LIBRARY: ServiceLibrary = {
  addToServer(server) {
    const text = { requestSerialize: Buffer.from, requestDeserialize: String, responseSerialize: Buffer.from };
    const common = { ...text, responseDeserialize: String, requestStream: false };
    server.addService(
      {
        One: { ...common, path: UNARY, responseStream: false, originalName: 'one' },
        Many: { ...common, path: STREAM, responseStream: true },
      },
      { one, Many: many },
    );
  },
};

const one: handleUnaryCall<string, string> = (call, callback) => callback(null, reversed(call.request));
const many: handleServerStreamingCall<string, string> = (call) => {
  for (const letter of reversed(call.request)) call.write(letter);
  call.end();
};

const reversed = (text: string): string => [...text].reverse().join('');

test('a library is loaded once, with the first call of any of its methods', async () => {
  let loads = 0;
  const server = new Server();
  const methods = [
    { path: UNARY, requestStream: false, responseStream: false },
    { path: STREAM, requestStream: false, responseStream: true },
  ];
  addLazyService(server, methods, () => {
    loads += 1;
    return LIBRARY;
  });
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
      error === null ? resolve(bound) : reject(error),
    );
  });
  const client = new Client(`127.0.0.1:${port}`, credentials.createInsecure());
  try {
    assert.equal(loads, 0);
    const letters: string[] = [];
    const stream = client.makeServerStreamRequest(STREAM, Buffer.from, String, 'abc');
    stream.on('data', (letter: string) => letters.push(letter));
    await once(stream, 'end');
    assert.deepEqual(letters, ['c', 'b', 'a']);
    const answer = await new Promise((resolve, reject) => {
      client.makeUnaryRequest(UNARY, Buffer.from, String, 'abc', (error, value) =>
        error === null ? resolve(value) : reject(error),
      );
    });
    assert.equal(answer, 'cba');
    assert.equal(loads, 1);
  } finally {
    client.close();
    server.forceShutdown();
  }
});

test('a broker that is imported has not loaded what parses .proto files', () => {
  const script = `
    import { createRequire } from 'node:module';
    await import('./src/main.ts');
    const { cache } = createRequire(import.meta.url);
    const loaded = Object.keys(cache);
    if (!loaded.some((path) => path.includes('/@grpc/grpc-js/'))) throw new Error('grpc-js is not among what is loaded');
    process.stdout.write(loaded.filter((path) => /proto-loader|protobufjs|grpc-health-check|reflection/.test(path)).join());
    process.exit(0);
  `;
  const args = ['--input-type=module', '-e', script];
  assert.equal(execFileSync(process.execPath, args, { cwd: ROOT, encoding: 'utf8' }), '');
});
