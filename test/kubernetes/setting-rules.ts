/** Rules over what the broker is told: that it takes it, and that the manifests around it mean the same. */
import { ConfigError, type LoadedConfig } from '../../src/config/load.ts';
import { variableOf } from '../../src/config/names.ts';
import { allKeys } from '../../src/config/schema.ts';
import { ofKind } from './rendered.ts';
import { type Rule, theStatefulSet, unless } from './rule.ts';
import { brokerOf, environmentOf, settingsOf } from './settings.ts';

/** What a stop may take beside shutdown.drain: threads and connections that do not answer. */
const CLOSING_SECONDS = 20;
const FIRST_POD = 'broker-0';
const SECRET_KEYS = ['postgres.url', 'cassandra.username', 'cassandra.password', 'gossip.key'];
/** Settings with an address, by the port of the pod that they are about. */
const LISTENING = { grpc: 'grpc.listen', admin: 'admin.listen', raft: 'raft.listen', gossip: 'gossip.listen' };

const loads: Rule = {
  name: 'the broker starts with these settings: each is a key of the configuration, and in range',
  problems: (manifests) => {
    try {
      settingsOf(theStatefulSet(manifests), manifests);
      return [];
    } catch (error) {
      if (error instanceof ConfigError) return [...error.problems];
      return [(error as Error).message];
    }
  },
};

/** As the configuration writes it. */
function setting({ rows }: LoadedConfig, key: string): string | undefined {
  return rows.find((row) => row.key === key)?.value;
}

const expansions: Rule = {
  name: 'a variable is made of those in front of it',
  problems: (manifests) => {
    const environment = environmentOf(brokerOf(theStatefulSet(manifests)), manifests);
    return Object.entries(environment)
      .filter(([, value]) => value.includes('$('))
      .map(([name, value]) => `${name} would be ${value}`);
  },
};

const ports: Rule = {
  name: 'the broker listens on the ports that the pod names, where others can reach them',
  problems: (manifests) => {
    const set = theStatefulSet(manifests);
    const loaded = settingsOf(set, manifests);
    return (brokerOf(set).ports ?? []).flatMap(({ name = '', containerPort }) => {
      const key = LISTENING[name.replace('-udp', '') as keyof typeof LISTENING];
      const value = key === undefined ? undefined : setting(loaded, key);
      return unless([value === `0.0.0.0:${containerPort}`, `port ${name} is ${containerPort}, ${key} is ${value}`]);
    });
  },
};

const names: Rule = {
  name: 'a node has the name of its pod, and is reached by the name that the headless service gives it',
  problems: (manifests) => {
    const set = theStatefulSet(manifests);
    const loaded = settingsOf(set, manifests);
    const { serviceName } = set.spec;
    const host = `${FIRST_POD}.${serviceName}.${set.metadata.namespace}.svc`;
    const nodeId = setting(loaded, 'node_id');
    const own = unless(
      [nodeId === FIRST_POD, `the node of ${FIRST_POD} is called ${nodeId}`],
      [setting(loaded, 'data_dir') === '/data', 'the data directory is not /data'],
    );
    if (set.spec.replicas === 1) return own;
    return [
      ...own,
      ...unless(
        [
          setting(loaded, 'grpc.advertise') === `${host}:8081`,
          `grpc.advertise is ${setting(loaded, 'grpc.advertise')}`,
        ],
        [
          setting(loaded, 'raft.advertise') === `${host}:12000`,
          `raft.advertise is ${setting(loaded, 'raft.advertise')}`,
        ],
        [
          setting(loaded, 'gossip.advertise') === '10.244.0.1:7946',
          `gossip.advertise: ${setting(loaded, 'gossip.advertise')}`,
        ],
        [setting(loaded, 'discovery.kind') === 'kubernetes', 'it does not look for its peers'],
        [setting(loaded, 'discovery.kubernetes_service') === serviceName, `it does not look at ${serviceName}`],
        [setting(loaded, 'bootstrap_expect') === String(set.spec.replicas), 'it waits for another number of brokers'],
        [Number(setting(loaded, 'raft.voters')) <= set.spec.replicas, 'more voters than brokers'],
      ),
    ];
  },
};

const stopping: Rule = {
  name: 'a stop has the time that it may take',
  problems: (manifests) => {
    const set = theStatefulSet(manifests);
    const { terminationGracePeriodSeconds: grace = 30 } = set.spec.template.spec;
    const { lifecycle } = brokerOf(set);
    const pause = lifecycle?.preStop?.sleep?.seconds ?? 0;
    const { drainMs } = settingsOf(set, manifests).config.shutdown;
    return unless(
      [pause > 0, 'SIGTERM comes while clients are still sent to it'],
      [grace >= pause + drainMs / 1_000 + CLOSING_SECONDS, `killed after ${grace} s`],
    );
  },
};

const secrets: Rule = {
  name: 'secrets come from Secrets, which are nowhere in the manifests',
  problems: (manifests) => {
    const { env = [] } = brokerOf(theStatefulSet(manifests));
    const secret = allKeys().filter(({ key }) => SECRET_KEYS.includes(key));
    const open = new Set([
      ...ofKind(manifests, 'ConfigMap').flatMap(({ data }) => Object.keys(data)),
      ...env.filter(({ value }) => value !== undefined).map(({ name }) => name),
    ]);
    return [
      ...manifests.filter(({ kind }) => kind === 'Secret').map(({ metadata }) => `Secret ${metadata.name}`),
      ...secret.filter(({ name }) => open.has(variableOf(name))).map(({ key }) => `${key} for everybody to read`),
    ];
  },
};

const links: Rule = {
  name: 'no variables are made for services of the namespace',
  problems: (manifests) =>
    unless([theStatefulSet(manifests).spec.template.spec.enableServiceLinks === false, 'enableServiceLinks']),
};

/** In this order: what cannot be loaded cannot be compared. */
export const SETTING_RULES: readonly Rule[] = [loads, expansions, ports, names, stopping, secrets, links];
