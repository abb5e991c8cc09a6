import { REASON_NAMES, REASONS, type ReasonRow } from './errors.ts';

/** docs/errors.md, in the order of the catalogue. */
export function errorsMarkdown(): string {
  const lines = [
    '# Errors',
    '',
    'Made from `src/base/errors.ts` by `npm run generate`.',
    '',
    'Every refusal of the broker carries `google.rpc.ErrorInfo` in the trailer `grpc-status-details-bin`: domain `broker`, one of the',
    'reasons below, and in its metadata `outcome`:',
    '',
    '- `none`: the request had no effect and never will. `UNAVAILABLE` and `RESOURCE_EXHAUSTED` with a reason always mean this. It is said of this request, not of an earlier one with the same producer id and sequence.',
    '- `unknown`: it may have taken effect. Retry a publish with the same producer id and sequence: it is stored once.',
    '',
    'Where waiting helps there is also `google.rpc.RetryInfo` (column "retry after"); without it the same request would be refused again.',
    "Statuses that the transport makes by itself have no reason: an unknown method (`UNIMPLEMENTED`), the client's own deadline or cancel,",
    'a lost connection, and a stream beyond `limits.streams_per_connection` (`RESOURCE_EXHAUSTED`, not processed).',
    '',
    '| reason | status | outcome | retry after | when | what to do |',
    '|---|---|---|---|---|---|',
  ];
  for (const reason of REASON_NAMES) {
    const row: ReasonRow = REASONS[reason];
    const retry = row.retryAfterMs === undefined ? '' : `${row.retryAfterMs} ms`;
    const cells = [`\`${reason}\``, `\`${row.status}\``, row.outcome, retry, row.when, row.next];
    lines.push(`| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`);
  }
  return `${lines.join('\n')}\n`;
}
