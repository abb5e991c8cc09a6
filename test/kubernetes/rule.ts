/** A rule of ours over all manifests of an overlay, and what several rules need. */
import { type Labels, type Manifest, ofKind, type Selector, type StatefulSet } from './rendered.ts';

export interface Rule {
  readonly name: string;
  /** What breaks it, a line each. */
  readonly problems: (manifests: readonly Manifest[]) => string[];
}

export function theStatefulSet(manifests: readonly Manifest[]): StatefulSet {
  const [set, ...others] = ofKind(manifests, 'StatefulSet');
  if (set === undefined || others.length > 0) throw new Error(`one StatefulSet is expected, not ${others.length + 1}`);
  return set;
}

export const podLabels = (manifests: readonly Manifest[]): Labels =>
  theStatefulSet(manifests).spec.template.metadata.labels;

/** Whether the selector names labels, and all of them are there. An empty one would select everything. */
export function selects(selector: Selector | undefined, labels: Labels): boolean {
  const wanted = Object.entries(selector?.matchLabels ?? {});
  return wanted.length > 0 && wanted.every(([name, value]) => labels[name] === value);
}

export function equal(left: unknown, right: unknown): boolean {
  return JSON.stringify(left) === JSON.stringify(right);
}

/** The lines for which the condition does not hold. */
export function unless(...checks: readonly (readonly [boolean, string])[]): string[] {
  return checks.filter(([holds]) => !holds).map(([, problem]) => problem);
}

const UNITS: Readonly<Record<string, number>> = {
  '': 1,
  m: 1e-3,
  Ki: 1024,
  Mi: 1024 ** 2,
  Gi: 1024 ** 3,
  Ti: 1024 ** 4,
};

/** `500m`, `2Gi`; NaN for what the manifests have no use for. */
export function quantity(text: string): number {
  const parts = /^([\d.]+)(m|[KMGT]i)?$/.exec(text);
  return parts === null ? Number.NaN : Number(parts[1]) * (UNITS[parts[2] ?? ''] ?? Number.NaN);
}
