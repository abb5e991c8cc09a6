/** Rules over the pods themselves: image, probes, resources, rights. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { ROOT } from '../support/source-tree.ts';
import { ofKind, type Probe } from './rendered.ts';
import { equal, quantity, type Rule, selects, theStatefulSet, unless } from './rule.ts';
import { brokerOf } from './settings.ts';

const USER = 10_001;
/** A start that reads a large database or log. */
const STARTUP_SECONDS_MIN = 10 * 60;

const image: Rule = {
  name: 'the image is the version of this package, not whatever is the latest',
  problems: (manifests) => {
    const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string };
    const { image: name } = brokerOf(theStatefulSet(manifests));
    return unless([name === `broker:${version}`, `the image is ${name}, not broker:${version}`]);
  },
};

const path = (probe: Probe | undefined): string | undefined => probe?.httpGet?.path;

const probes: Rule = {
  name: 'three probes have three meanings, and a broker without a leader is not restarted',
  problems: (manifests) => {
    const {
      startupProbe: startup,
      readinessProbe: readiness,
      livenessProbe: liveness,
      ports,
    } = brokerOf(theStatefulSet(manifests));
    const given = [startup, readiness, liveness];
    const names = (ports ?? []).map(({ name }) => name);
    const patience = (startup?.periodSeconds ?? 0) * (startup?.failureThreshold ?? 0);
    return unless(
      [given.every((probe) => probe !== undefined), 'a probe is missing'],
      [new Set(given.map((probe) => JSON.stringify(probe))).size === 3, 'two probes are the same'],
      [path(readiness) === '/readyz', 'readiness does not ask /readyz'],
      [path(liveness) === '/healthz', 'liveness asks for more than /healthz'],
      [
        path(startup) === '/healthz',
        'startup asks for more than /healthz: a node that waits for others would be restarted',
      ],
      [patience >= STARTUP_SECONDS_MIN, `a start may take ${patience} s only`],
      [given.every((probe) => names.includes(String(probe?.httpGet?.port))), 'a probe asks a port that has no name'],
    );
  },
};

const resources: Rule = {
  name: 'resources are asked for, are within their limits, and the processor has none',
  problems: (manifests) => {
    const { requests = {}, limits = {} } = brokerOf(theStatefulSet(manifests)).resources ?? {};
    return [
      ...unless(
        [requests.cpu !== undefined && requests.memory !== undefined, 'cpu and memory are not asked for'],
        [limits.memory !== undefined, 'memory has no limit'],
        [limits.cpu === undefined, 'cpu has a limit: a broker that is throttled misses heartbeats'],
      ),
      ...Object.entries(limits)
        .filter(([name, limit]) => !(quantity(requests[name] ?? limit) <= quantity(limit)))
        .map(([name, limit]) => `${name}: ${requests[name]} is asked for, the limit is ${limit}`),
    ];
  },
};

const security: Rule = {
  name: 'Pod Security "restricted" is enforced, and fulfilled with more than it asks for',
  problems: (manifests) => {
    const { spec } = theStatefulSet(manifests).spec.template;
    const pod = spec.securityContext;
    const container = brokerOf(theStatefulSet(manifests)).securityContext;
    const spaces = manifests.filter(({ kind }) => kind === 'Namespace');
    const level = spaces[0]?.metadata.labels?.['pod-security.kubernetes.io/enforce'];
    return unless(
      [level === 'restricted', `the namespace enforces ${level}`],
      [pod?.runAsNonRoot === true && pod.runAsUser === USER && pod.fsGroup === USER, `it does not run as ${USER}`],
      [pod?.seccompProfile?.type === 'RuntimeDefault', 'no seccomp profile'],
      [container?.allowPrivilegeEscalation === false && container.privileged !== true, 'privileges may be gained'],
      [equal(container?.capabilities, { drop: ['ALL'] }), 'capabilities are left'],
      [container?.readOnlyRootFilesystem === true, 'its root file system can be written'],
    );
  },
};

const storage: Rule = {
  name: 'the data directory is a volume that stays with the pod',
  problems: (manifests) => {
    const set = theStatefulSet(manifests);
    const claims = (set.spec.volumeClaimTemplates ?? []).map(({ metadata }) => metadata.name);
    const mounts = brokerOf(set).volumeMounts ?? [];
    const data = mounts.find(({ mountPath }) => mountPath === '/data');
    return unless([data !== undefined && claims.includes(data.name), '/data is no volume of the claim templates']);
  },
};

const spread: Rule = {
  name: 'several brokers are on several machines, start at once, and one may be taken away at a time',
  problems: (manifests) => {
    const set = theStatefulSet(manifests);
    const budgets = ofKind(manifests, 'PodDisruptionBudget');
    const { topologySpreadConstraints: constraints = [] } = set.spec.template.spec;
    const { labels } = set.spec.template.metadata;
    const keys = constraints.map(({ topologyKey }) => topologyKey);
    if (set.spec.replicas === 1) return unless([budgets.length === 0, 'a budget for one broker']);
    return unless(
      [set.spec.podManagementPolicy === 'Parallel', 'the first broker waits for itself: not Parallel'],
      [set.spec.updateStrategy?.rollingUpdate?.partition === 0, 'an update may never end: rollingUpdate is not said'],
      [keys.includes('kubernetes.io/hostname') && keys.includes('topology.kubernetes.io/zone'), 'not spread'],
      [constraints.every(({ labelSelector }) => selects(labelSelector, labels)), 'the spread counts other pods'],
      [budgets.length === 1, 'no budget, or several'],
      [budgets.every(({ spec }) => selects(spec.selector, labels)), 'the budget counts other pods'],
      [budgets.every(({ spec }) => spec.maxUnavailable === 1), 'more than one may be taken away at a time'],
    );
  },
};

const accounts: Rule = {
  name: 'a broker may follow the endpoints of its peers and do nothing else; a lone one may do nothing',
  problems: (manifests) => {
    const set = theStatefulSet(manifests);
    const { serviceAccountName: account, automountServiceAccountToken: hasToken } = set.spec.template.spec;
    const rules = ofKind(manifests, 'Role').flatMap((role) => role.rules);
    const bindings = ofKind(manifests, 'RoleBinding');
    const roles = ofKind(manifests, 'Role').map(({ metadata }) => metadata.name);
    const others = manifests.filter(({ kind }) => kind.startsWith('ClusterRole'));
    const isAlone = set.spec.replicas === 1;
    const needed = { apiGroups: ['discovery.k8s.io'], resources: ['endpointslices'], verbs: ['list', 'watch'] };
    return unless(
      [equal(rules, isAlone ? [] : [needed]), `the rules are ${JSON.stringify(rules)}`],
      [others.length === 0, 'rights in the whole cluster'],
      [hasToken === !isAlone, `token in the pod: ${hasToken}`],
      [bindings.length === (isAlone ? 0 : 1), `${bindings.length} bindings`],
      [bindings.every(({ roleRef }) => roles.includes(roleRef.name)), 'a binding of another role'],
      [
        bindings.every(({ subjects }) =>
          equal(subjects, [{ kind: 'ServiceAccount', name: account, namespace: set.metadata.namespace }]),
        ),
        'a binding of another account',
      ],
    );
  },
};

export const POD_RULES: readonly Rule[] = [image, probes, resources, security, storage, spread, accounts];
