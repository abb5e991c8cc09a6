/** The keys of tracing. A part of `SCHEMA`. */
import { z } from 'zod';
import {
  boolean,
  type Disguise,
  type Field,
  integer,
  MASK,
  optionalText,
  type Scalar,
  secretText,
  text,
} from './field.ts';

/** No user and no password: those of a collector are headers, which are secret. */
const URL_PATTERN = /^https?:\/\/[^\s@/?#]+(\/[^\s@?#]*)?$/;
/** As OTEL_EXPORTER_OTLP_HEADERS has them: names of HTTP headers, values without commas. */
const HEADERS_PATTERN = /^[\w!#$%&'*+.^`|~-]+=[^,\r\n]+(,[\w!#$%&'*+.^`|~-]+=[^,\r\n]+)*$/;

/** Names of headers are shown, their values are not: neither as a whole nor without the word in front, as in `Bearer abc`. */
const HEADERS_DISGUISE: Disguise = {
  // Of what are no headers nobody knows where the secret is.
  mask: (text) => (HEADERS_PATTERN.test(text) ? text.replace(/=[^,]*/g, `=${MASK}`) : MASK),
  secretsIn: (text) => {
    const values = text.split(',').map((header) => header.slice(header.indexOf('=') + 1));
    const words = values.map((value) => value.slice(value.lastIndexOf(' ') + 1));
    return [...new Set([...values, ...words, text])].filter((secret) => secret !== '');
  },
};

const NUMBER = /^(\d+(\.\d+)?|\.\d+)$/;

function share(options: { readonly default: number; readonly doc: string }): Field<number> {
  const input = z.union([z.number(), z.string().regex(NUMBER)]).transform(Number);
  return {
    kind: 'field',
    type: 'text',
    schema: input.pipe(z.number().min(0).max(1)) as unknown as z.ZodType<number, Scalar>,
    rule: 'must be a share from 0 to 1, such as 0.01 for one in a hundred',
    guess: (given) => (/^\d{1,3}(\.\d+)?%$/.test(given) ? [String(Number.parseFloat(given) / 100)] : []),
    default: options.default,
    defaultText: String(options.default),
    range: '0 to 1',
    doc: options.doc,
    jsonSchema: {
      anyOf: [
        { type: 'number', minimum: 0, maximum: 1 },
        { type: 'string', pattern: NUMBER.source },
      ],
    },
    secretsIn: () => [],
    format: String,
    suffix: '',
    shortName: null,
  };
}

export const TRACING = {
  endpoint: optionalText({
    pattern: URL_PATTERN,
    rule: 'a URL such as http://127.0.0.1:4318/v1/traces, without a user or a password',
    unset: 'off',
    doc: 'Where spans are sent, by OTLP over HTTP with protobuf: a collector, Jaeger, or another that speaks it. With a path it is taken as it is, without one `/v1/traces` is added. Unset, nothing is traced and nothing of OpenTelemetry is loaded.',
  }),
  headers: secretText({
    pattern: HEADERS_PATTERN,
    rule: 'HTTP headers such as authorization=Bearer abc, with commas between several',
    unset: 'none',
    disguise: HEADERS_DISGUISE,
    doc: 'HTTP headers of what is sent to `tracing.endpoint`, such as the key of a service. Never printed.',
  }),
  ratio: share({
    default: 0.01,
    doc: 'Share of the calls and batches that are traced although their sender says nothing of a trace. Each traced one is about eight spans. 0: only what comes with a sampled `traceparent`.',
  }),
  parent_based: boolean({
    default: true,
    doc: 'Trace what comes with a sampled `traceparent`, in the metadata of a call or in a header of a message, and nothing that comes with one that is not sampled. Off: `tracing.ratio` alone decides, for clients that are not trusted to.',
  }),
  traces_per_second: integer({
    min: 1,
    max: 100_000,
    default: 100,
    doc: 'Most calls and batches that this node begins to trace in a second, whoever wants them sampled; the others go untraced and are counted. A traced call costs the broker about 90 µs of CPU time for making and sending about eight spans, nearly all of it on the main thread: 100 a second are less than 1 % of a core.',
  }),
  service_name: text({
    pattern: /^[\x20-\x7e]{1,255}$/,
    rule: '1 to 255 printable ASCII characters',
    default: 'broker',
    doc: 'Name of the service that the spans are filed under (`service.name`). The node is `service.instance.id`.',
  }),
};
