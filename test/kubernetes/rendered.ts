/** What an overlay of k8s/ comes to, and the parts of it that the rules look at. */
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { parseAllDocuments, stringify } from 'yaml';
import { ROOT } from '../support/source-tree.ts';
import { manifestTools, runOrFail } from './go-tools.ts';

export const MANIFESTS = join(ROOT, 'k8s');
export const OVERLAYS: readonly string[] = readdirSync(join(MANIFESTS, 'overlays')).sort();

export type Labels = Readonly<Record<string, string>>;

export interface Manifest {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly namespace?: string; readonly labels?: Labels };
  readonly spec?: unknown;
}

export interface ContainerPort {
  readonly name?: string;
  readonly containerPort: number;
  readonly protocol?: string;
}

export interface Probe {
  readonly httpGet?: { readonly path: string; readonly port: string | number; readonly scheme?: string };
  readonly periodSeconds?: number;
  readonly failureThreshold?: number;
}

export interface EnvironmentEntry {
  readonly name: string;
  readonly value?: string;
  readonly valueFrom?: {
    readonly fieldRef?: { readonly fieldPath: string };
    readonly secretKeyRef?: { readonly name: string; readonly key: string };
  };
}

export interface SecurityContext {
  readonly runAsNonRoot?: boolean;
  readonly runAsUser?: number;
  readonly fsGroup?: number;
  readonly seccompProfile?: { readonly type: string };
  readonly privileged?: boolean;
  readonly allowPrivilegeEscalation?: boolean;
  readonly readOnlyRootFilesystem?: boolean;
  readonly capabilities?: { readonly add?: readonly string[]; readonly drop?: readonly string[] };
}

export interface Container {
  readonly name: string;
  readonly image: string;
  readonly args?: readonly string[];
  readonly ports?: readonly ContainerPort[];
  readonly env?: readonly EnvironmentEntry[];
  readonly envFrom?: readonly { readonly configMapRef?: { readonly name: string } }[];
  readonly startupProbe?: Probe;
  readonly readinessProbe?: Probe;
  readonly livenessProbe?: Probe;
  readonly lifecycle?: { readonly preStop?: { readonly sleep?: { readonly seconds: number } } };
  readonly resources?: { readonly requests?: Labels; readonly limits?: Labels };
  readonly securityContext?: SecurityContext;
  readonly volumeMounts?: readonly { readonly name: string; readonly mountPath: string }[];
}

export interface Selector {
  readonly matchLabels?: Labels;
}

export interface PodSpec {
  readonly serviceAccountName?: string;
  readonly automountServiceAccountToken?: boolean;
  readonly enableServiceLinks?: boolean;
  readonly terminationGracePeriodSeconds?: number;
  readonly securityContext?: SecurityContext;
  readonly containers: readonly Container[];
  readonly topologySpreadConstraints?: readonly { readonly topologyKey: string; readonly labelSelector?: Selector }[];
}

export interface StatefulSet extends Manifest {
  readonly spec: {
    readonly replicas: number;
    readonly serviceName: string;
    readonly podManagementPolicy?: string;
    readonly updateStrategy?: { readonly rollingUpdate?: { readonly partition?: number } };
    readonly selector: Selector;
    readonly template: { readonly metadata: { readonly labels: Labels }; readonly spec: PodSpec };
    readonly volumeClaimTemplates?: readonly { readonly metadata: { readonly name: string } }[];
  };
}

export interface Service extends Manifest {
  readonly spec: {
    readonly clusterIP?: string;
    readonly publishNotReadyAddresses?: boolean;
    readonly selector?: Labels;
    readonly ports: readonly {
      readonly name?: string;
      readonly port: number;
      readonly targetPort?: string | number;
      readonly protocol?: string;
    }[];
  };
}

export interface NetworkPolicy extends Manifest {
  readonly spec: {
    readonly podSelector: Selector;
    readonly ingress: readonly {
      readonly from?: readonly { readonly podSelector?: Selector; readonly namespaceSelector?: Selector }[];
      readonly ports?: readonly { readonly port: string | number; readonly protocol?: string }[];
    }[];
  };
}

export interface PodDisruptionBudget extends Manifest {
  readonly spec: { readonly maxUnavailable?: string | number; readonly selector: Selector };
}

export interface ConfigMap extends Manifest {
  readonly data: Labels;
}

export interface Role extends Manifest {
  readonly rules: readonly {
    readonly apiGroups: readonly string[];
    readonly resources: readonly string[];
    readonly verbs: readonly string[];
  }[];
}

export interface RoleBinding extends Manifest {
  readonly roleRef: { readonly kind: string; readonly name: string };
  readonly subjects: readonly { readonly kind: string; readonly name: string; readonly namespace?: string }[];
}

export interface ServiceMonitor extends Manifest {
  readonly spec: {
    readonly jobLabel?: string;
    readonly selector: Selector;
    readonly endpoints: readonly { readonly port: string }[];
  };
}

export interface PrometheusRule extends Manifest {
  readonly spec: { readonly groups: readonly { readonly rules: readonly { readonly expr: string }[] }[] };
}

interface Kinds {
  readonly StatefulSet: StatefulSet;
  readonly Service: Service;
  readonly NetworkPolicy: NetworkPolicy;
  readonly PodDisruptionBudget: PodDisruptionBudget;
  readonly ConfigMap: ConfigMap;
  readonly Role: Role;
  readonly RoleBinding: RoleBinding;
  readonly ServiceMonitor: ServiceMonitor;
  readonly PrometheusRule: PrometheusRule;
}

/** The manifests of a kind; that they have its fields is what kubeconform has to say. */
export function ofKind<Kind extends keyof Kinds>(manifests: readonly Manifest[], kind: Kind): Kinds[Kind][] {
  return manifests.filter((manifest) => manifest.kind === kind) as Kinds[Kind][];
}

export interface RenderOptions {
  /** Folders of k8s/components/ that are added to the overlay. */
  readonly components?: readonly string[];
  /** More of a kustomization: `namespace`, `patches`, `replicas`. */
  readonly more?: Readonly<Record<string, unknown>>;
}

/** The YAML that `kubectl apply -k` would send for an overlay, as somebody uses it who has a kustomization of his own. */
export async function render(overlay: string, { components = [], more = {} }: RenderOptions = {}): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), 'broker-kustomize-'));
  const path = (...parts: string[]): string => relative(folder, join(MANIFESTS, ...parts));
  try {
    const kustomization = {
      apiVersion: 'kustomize.config.k8s.io/v1beta1',
      kind: 'Kustomization',
      namespace: 'broker',
      resources: [path('overlays', overlay)],
      components: components.map((name) => path('components', name)),
      ...more,
    };
    writeFileSync(join(folder, 'kustomization.yaml'), stringify(kustomization));
    return await runOrFail((await manifestTools()).kustomize, ['build', folder]);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

export function parseManifests(text: string): Manifest[] {
  return parseAllDocuments(text).map((document) => document.toJS() as Manifest);
}
