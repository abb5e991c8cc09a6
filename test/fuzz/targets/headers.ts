/** What callers bring in headers and metadata. */

import { isTenant, TENANT_DEFAULT } from '../../../src/base/subject-space.ts';
import { formatTraceparent, parseTraceparent, spanIdOf, traceIdOf } from '../../../src/base/trace-context.ts';
import { isPlain, timeoutMsOf } from '../../../src/grpc/call-headers.ts';
import { tenantOfHeader } from '../../../src/grpc/tenant.ts';
import { expect, type FuzzTarget } from '../target.ts';

const PLAIN = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';
/** The standard's own rule, as an expression. */
const VALID = /^(?!ff)(?:00|(?!00)[\da-f]{2})-(?!0{32})([\da-f]{32})-(?!0{16})([\da-f]{16})-([\da-f]{2})(-.*)?$/s;

const traceparent: FuzzTarget = {
  name: 'traceparent',
  about: 'a traceparent as metadata brings it, against the rule of the standard',
  memoryBytes: 512 << 10,
  lengthMax: 600,
  dictionary: ['-', '00', 'ff', '0000000000000000'],
  seeds: () => [Buffer.from(PLAIN), Buffer.from(`01${PLAIN.slice(2)}-more`), Buffer.from(PLAIN.toUpperCase())],
  run: (bytes) => {
    const text = bytes.toString('latin1');
    const context = parseTraceparent(text);
    const match = text.length <= 512 ? VALID.exec(text) : null;
    const isValid = match !== null && (!text.startsWith('00') || match[4] === undefined);
    expect((context !== null) === isValid, 'the standard says otherwise of', () => text);
    if (context === null) return false;
    expect(traceIdOf(context) === match?.[1] && spanIdOf(context) === match[2], 'another id in', () => text);
    expect(formatTraceparent(context).slice(2) === text.slice(2, 55), 'written otherwise:', () => text);
    return true;
  },
};

const HEADERS = { ':method': 'POST', 'content-type': 'application/grpc' };
const UNITS: readonly string[] = ['H', 'M', 'S', 'm', 'u', 'n'];

const callHeaders: FuzzTarget = {
  name: 'call-headers',
  about: 'grpc-timeout, grpc-encoding, content-type and x-tenant of a call',
  memoryBytes: 512 << 10,
  lengthMax: 200,
  dictionary: ['99999999H', '0n', 'identity', 'gzip', 'application/grpc', 'application/grpc+proto', ', ', '__proto__'],
  seeds: () => ['5S', '99999999H', '1n', 'acme', 'a.b-c_d', 'application/grpc+json'].map((text) => Buffer.from(text)),
  run: (bytes) => {
    const text = bytes.toString('latin1');
    for (const name of ['content-type', 'grpc-encoding', ':method']) isPlain({ ...HEADERS, [name]: text });
    const tenant = tenantOfHeader(text);
    expect(tenant === null || (tenant === text && isTenant(text) && tenant.length <= 64), 'another tenant', () => text);
    expect(tenantOfHeader(undefined) === TENANT_DEFAULT && tenantOfHeader([text]) === null, 'a tenant of no text');
    const isTimeout = isPlain({ ...HEADERS, 'grpc-timeout': text });
    const isRight = /^[0-9]{1,8}$/.test(text.slice(0, -1)) && UNITS.includes(text.slice(-1));
    expect(isTimeout === isRight, 'the specification says otherwise of', () => text);
    if (!isTimeout) return tenant !== null;
    const ms = timeoutMsOf(text);
    expect(Number.isSafeInteger(ms) && ms >= 0, 'a time that does not exist', () => text);
    return true;
  },
};

export const HEADER_TARGETS: readonly FuzzTarget[] = [traceparent, callHeaders];
