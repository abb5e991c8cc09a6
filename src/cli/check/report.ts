/** How findings are written. */
import { counted } from '../top/text.ts';
import { type Finding, LEVELS, worst } from './checks.ts';

/** The first line is all that many programs show. */
export function toText(findings: readonly Finding[], address: string): string {
  const bad = findings.filter(({ level }) => level !== 'ok');
  const summary =
    bad.length === 0 ? `all ${counted(findings.length, 'check')}` : bad.map(({ check }) => check).join(', ');
  const width = Math.max(...findings.map(({ check }) => check.length));
  const lines = findings.map(
    ({ check, level, message }) => `${level.toUpperCase().padEnd(8)}  ${check.padEnd(width)}  ${message}`,
  );
  return [`broker ${address} ${worst(findings).toUpperCase()}: ${summary}`, ...lines].join('\n');
}

export function toJson(findings: readonly Finding[], address: string): Record<string, unknown> {
  return {
    address,
    level: worst(findings),
    checks: findings.map(({ check, level, value, unit, threshold, message }) => ({
      check,
      level,
      value,
      unit,
      warning: threshold.warning,
      critical: threshold.critical,
      message,
    })),
  };
}

const LEVEL = 'broker_check_level';
const VALUE = 'broker_check_value';

/** The text format of Prometheus, for the textfile collector of node_exporter. */
export function toPrometheus(findings: readonly Finding[], address: string): string {
  const labels = ({ check }: Finding): string => `address="${escaped(address)}",check="${check}"`;
  const lines = [
    `# HELP ${LEVEL} How a check went: 0 ok, 1 warning, 2 critical, 3 unknown.`,
    `# TYPE ${LEVEL} gauge`,
    ...findings.map((finding) => `${LEVEL}{${labels(finding)}} ${LEVELS.indexOf(finding.level)}`),
  ];
  const valued = findings.filter(({ value }) => value !== null);
  if (valued.length > 0) {
    lines.push(
      `# HELP ${VALUE} What was measured, in the unit of the label.`,
      `# TYPE ${VALUE} gauge`,
      ...valued.map((finding) => `${VALUE}{${labels(finding)},unit="${finding.unit}"} ${finding.value}`),
    );
  }
  return lines.join('\n');
}

function escaped(text: string): string {
  return text.replace(/\\/g, '\\\\').replace(/"/g, '\\"').replace(/\n/g, '\\n');
}
