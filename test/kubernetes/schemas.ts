/**
 * JSON schemas for kubeconform, from what Kubernetes and the Prometheus operator publish of their kinds. They are strict, which the
 * published ones are not: a field that is not declared is refused, as the API server does with strict field validation.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'yaml';
import { KUBERNETES, moduleFolder, PROMETHEUS_OPERATOR } from './go-tools.ts';

/** For kubeconform's `-schema-location`, behind the folder. */
export const SCHEMA_FILE = '{{.ResourceKind}}{{.KindSuffix}}.json';

interface Schema {
  readonly $ref?: string;
  readonly type?: string;
  readonly format?: string;
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly additionalProperties?: Schema | boolean;
  readonly items?: Schema;
  readonly required?: readonly string[];
  readonly [keyword: string]: unknown;
}

interface GroupVersionKind {
  readonly group: string;
  readonly version: string;
  readonly kind: string;
}

type Definitions = Readonly<Record<string, Schema>>;

const PREFIX = '#/definitions/';
const METADATA = 'io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta';
const CUSTOM_KINDS = ['servicemonitors', 'prometheusrules'] as const;
/** Written as numbers too: `cpu: 2`, `port: 8081`. */
const TEXT_OR_NUMBER = { oneOf: [{ type: 'string' }, { type: 'number' }] };

/** Writes a file for each kind; returns how many. */
export async function writeSchemas(folder: string): Promise<number> {
  const definitions = await readDefinitions();
  mkdirSync(folder, { recursive: true });
  let count = 0;
  for (const [schema, names] of [...builtIn(definitions), ...(await custom(definitions))]) {
    writeFileSync(join(folder, fileOf(names)), JSON.stringify(schema));
    count += 1;
  }
  return count;
}

async function readDefinitions(): Promise<Definitions> {
  const path = join(await moduleFolder(KUBERNETES), 'api', 'openapi-spec', 'swagger.json');
  return (JSON.parse(readFileSync(path, 'utf8')) as { definitions: Definitions }).definitions;
}

/** Kinds of one group and version; the few others (`DeleteOptions`) are in no manifest. */
function* builtIn(definitions: Definitions): Generator<readonly [Schema, GroupVersionKind]> {
  for (const definition of Object.values(definitions)) {
    const kinds = definition['x-kubernetes-group-version-kind'] as readonly GroupVersionKind[] | undefined;
    if (kinds?.length !== 1) continue;
    const [names] = kinds as [GroupVersionKind];
    yield [ofKind(strict(definition, definitions, []), names), names];
  }
}

async function custom(definitions: Definitions): Promise<(readonly [Schema, GroupVersionKind])[]> {
  const folder = join(await moduleFolder(PROMETHEUS_OPERATOR), 'example', 'prometheus-operator-crd');
  return CUSTOM_KINDS.flatMap((plural) => {
    const text = readFileSync(join(folder, `monitoring.coreos.com_${plural}.yaml`), 'utf8');
    const { spec } = parse(text) as CustomResourceDefinition;
    return spec.versions.map(({ name, schema }) => {
      const names = { group: spec.group, version: name, kind: spec.names.kind };
      const properties = { ...schema.openAPIV3Schema.properties, metadata: { $ref: PREFIX + METADATA } };
      return [ofKind(strict({ ...schema.openAPIV3Schema, properties }, definitions, []), names), names] as const;
    });
  });
}

interface CustomResourceDefinition {
  readonly spec: {
    readonly group: string;
    readonly names: { readonly kind: string };
    readonly versions: readonly { readonly name: string; readonly schema: { readonly openAPIV3Schema: Schema } }[];
  };
}

/** As kubeconform names it: the group up to its first dot. */
function fileOf({ group, version, kind }: GroupVersionKind): string {
  const parts = [kind, ...(group === '' ? [] : [group.split('.', 1)[0]]), version];
  return `${parts.join('-').toLowerCase()}.json`;
}

function ofKind(schema: Schema, { group, version, kind }: GroupVersionKind): Schema {
  const apiVersion = group === '' ? version : `${group}/${version}`;
  const properties = { ...schema.properties, kind: { enum: [kind] }, apiVersion: { enum: [apiVersion] } };
  return { ...schema, properties, required: [...(schema.required ?? []), 'kind', 'apiVersion'] };
}

/** The schema with references put in (a reference to what is around it allows anything), and with no fields but those that it names. */
function strict(schema: Schema, definitions: Definitions, around: readonly string[]): Schema {
  if (schema.$ref !== undefined) {
    const name = schema.$ref.slice(PREFIX.length);
    const referred = definitions[name];
    if (referred === undefined) throw new Error(`there is no definition of ${name}`);
    return around.includes(name) ? {} : strict(referred, definitions, [...around, name]);
  }
  const isText = schema.format === 'int-or-string' || schema['x-kubernetes-int-or-string'] === true;
  if (isText || around.at(-1)?.endsWith('.Quantity') === true) return TEXT_OR_NUMBER;
  const { description: _, format: __, properties, additionalProperties, items, ...rest } = schema;
  const inner = (one: Schema): Schema => strict(one, definitions, around);
  const isOpen = schema['x-kubernetes-preserve-unknown-fields'] === true;
  return {
    ...rest,
    ...(items === undefined ? {} : { items: inner(items) }),
    ...(properties === undefined ? {} : { properties: mapValues(properties, inner) }),
    ...(properties === undefined || isOpen ? {} : { additionalProperties: false }),
    ...(typeof additionalProperties === 'object' ? { additionalProperties: inner(additionalProperties) } : {}),
  };
}

function mapValues<Value, Result>(
  record: Readonly<Record<string, Value>>,
  change: (value: Value) => Result,
): Record<string, Result> {
  return Object.fromEntries(Object.entries(record).map(([name, value]) => [name, change(value)]));
}
