/**
 * For `--import` of a broker: takes the tokens of parties.ts without an access file. Nodes that have one ask each other who they are, which is no
 * matter of tests of spaces.
 */
import type { IncomingHttpHeaders } from 'node:http2';
import { Operator } from '../../src/access/operator.ts';
import { spaceOf } from '../../src/base/subject-space.ts';
import { OpenCallers } from '../../src/grpc/callers.ts';

const { of } = OpenCallers.prototype;
const known = new Map<string, Operator>();

function callerOf(header: string): Operator | undefined {
  const tenant = /^Bearer token-of-(acme|globex)-/.exec(header)?.[1];
  if (tenant === undefined) return undefined;
  const caller = new Operator(tenant, spaceOf(tenant));
  known.set(header, caller);
  return caller;
}

OpenCallers.prototype.of = function (stream, headers: IncomingHttpHeaders) {
  const { authorization = '' } = headers;
  return known.get(authorization) ?? callerOf(authorization) ?? of.call(this, stream, headers);
};
