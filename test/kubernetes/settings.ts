/** The settings that a broker of a StatefulSet would start with, by its own configuration loader. */
import { type LoadedConfig, loadConfig } from '../../src/config/load.ts';
import { type Container, type Manifest, ofKind, type StatefulSet } from './rendered.ts';

/** What the cluster would put in for the first pod. */
const FIELDS: Readonly<Record<string, string>> = {
  'metadata.name': 'broker-0',
  'metadata.namespace': 'broker',
  'status.podIP': '10.244.0.1',
};

/** Values of the shape that the documentation asks for, by Secret and key. */
export const SECRETS: Readonly<Record<string, string>> = {
  'broker-postgres/url': 'postgres://broker:secret@postgres.databases.svc:5432/broker',
  'broker-cassandra/username': 'broker',
  'broker-cassandra/password': 'secret',
  'broker-gossip/key': Buffer.alloc(32, 7).toString('base64'),
};

/** The variables of a container, as the kubelet makes them. Throws where it would not start the container. */
export function environmentOf(
  container: Container,
  manifests: readonly Manifest[],
  { fields = FIELDS, secrets = SECRETS }: { readonly fields?: typeof FIELDS; readonly secrets?: typeof SECRETS } = {},
): Record<string, string> {
  const environment: Record<string, string> = {};
  for (const { configMapRef } of container.envFrom ?? []) {
    const found = ofKind(manifests, 'ConfigMap').find(({ metadata }) => metadata.name === configMapRef?.name);
    if (found === undefined) throw new Error(`there is no ConfigMap ${configMapRef?.name}`);
    Object.assign(environment, found.data);
  }
  for (const { name, value, valueFrom } of container.env ?? []) {
    const secret = valueFrom?.secretKeyRef;
    const given =
      secret === undefined ? fields[valueFrom?.fieldRef?.fieldPath ?? ''] : secrets[`${secret.name}/${secret.key}`];
    // A name that is not known yet stays as it is written: order matters.
    const expanded = value?.replace(/\$\((\w+)\)/g, (written, other: string) => environment[other] ?? written);
    const result = expanded ?? given;
    if (result === undefined) throw new Error(`${name}: nothing to take it from`);
    environment[name] = result;
  }
  return environment;
}

export function brokerOf(set: StatefulSet): Container {
  const [container, ...others] = set.spec.template.spec.containers;
  if (container === undefined || others.length > 0) throw new Error(`${set.metadata.name}: one container is expected`);
  return container;
}

/** Throws ConfigError, as a broker with these variables and arguments ends with exit code 2. */
export function settingsOf(set: StatefulSet, manifests: readonly Manifest[]): LoadedConfig {
  const container = brokerOf(set);
  const [command, ...argv] = container.args ?? [];
  if (command !== 'serve') throw new Error(`${set.metadata.name}: its arguments must begin with serve`);
  const fields = { ...FIELDS, 'metadata.namespace': set.metadata.namespace ?? 'default' };
  return loadConfig({ argv, environment: environmentOf(container, manifests, { fields }) });
}
