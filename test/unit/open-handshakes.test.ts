import assert from 'node:assert/strict';
import { Socket } from 'node:net';
import { test } from 'node:test';
import { Prng } from '../../src/base/prng.ts';
import { OpenHandshakes } from '../../src/grpc/open-handshakes.ts';

test('whoever comes and goes, the one that makes room is the oldest of a host with the most', () => {
  const prng = new Prng(7);
  const handshakes = new OpenHandshakes();
  const open: { readonly host: string; readonly socket: Socket }[] = [];
  for (let step = 0; step < 2_000; step++) {
    if (open.length === 0 || prng.nextBelow(5) < 3) {
      const one = { host: `10.0.0.${prng.nextBelow(6)}`, socket: new Socket() };
      open.push(one);
      handshakes.add(one.socket, one.host);
    } else {
      const [gone] = open.splice(prng.nextBelow(open.length), 1);
      if (gone !== undefined) handshakes.delete(gone.socket);
    }
    const of = (wanted: string) => open.filter(({ host }) => host === wanted);
    const most = Math.max(0, ...open.map(({ host }) => of(host).length));
    const found = handshakes.oldestOfMost();
    const host = open.find(({ socket }) => socket === found)?.host ?? '';
    assert.equal(found, of(host)[0]?.socket);
    assert.equal(of(host).length, most);
    if (step % 500 === 499) for (const { socket } of open.splice(0)) handshakes.delete(socket);
  }
});
