/** The configuration as documentation: Markdown, JSON schema, help. All made from the schema; a test keeps the files in docs/ equal. */
import { z } from 'zod';
import { OTHER_VARIABLES } from './environment.ts';
import type { FieldType } from './field.ts';
import { flagOf, variableOf } from './names.ts';
import { RULES } from './rules.ts';
import { type AnyField, allKeys, isField, type Key, SCHEMA, type SchemaTree } from './schema.ts';

const TYPE_WORDS: Readonly<Record<FieldType, string>> = {
  text: 'text',
  integer: 'number',
  bytes: 'size',
  duration: 'duration',
  boolean: 'true or false',
  choice: 'choice',
  endpoint: 'HOST:PORT',
  endpoints: 'list of HOST:PORT',
};

/** For `broker serve --help`: one line a key, its whole text is in docs/configuration.md. */
export function formatKeysForHelp(): string {
  const width = Math.max(...allKeys().map((key) => flagOf(key.name).length));
  const lines = allKeys().map((key) => {
    const first = /^.*?\.(?= |$)/.exec(key.field.doc)?.[0] ?? key.field.doc;
    return `  ${flagOf(key.name).padEnd(width)}  ${first.replace(/\.$/, '')} [${key.field.defaultText}]`;
  });
  const config = `  ${'--config'.padEnd(width)}  YAML file with any of these keys`;
  return [
    'Settings, with defaults; each is also a variable (--shards is BROKER_SHARDS) and a key of the file. docs/configuration.md says more.',
    config,
    ...lines,
  ].join('\n');
}

export function configurationMarkdown(): string {
  return `${[INTRODUCTION, ...allKeys().map(section), betweenKeys(), otherVariables()].join('\n\n')}\n`;
}

const INTRODUCTION = `# Configuration

<!-- Made from src/config/schema.ts by \`npm run generate\`: change it there. -->

Every setting can be given in three places; the first that has it wins:

1. a flag: \`broker serve --limits-body-bytes 512KiB\`, \`npm start -- --shards 4\`;
2. a variable: \`BROKER_LIMITS_BODY_BYTES=512KiB\`, \`BROKER_SHARDS=4\`; an empty one counts as not set;
3. a YAML file named by \`--config\` or \`BROKER_CONFIG\`:

\`\`\`yaml
data_dir: /var/lib/broker
shards: 4
limits:
  body_bytes: 512KiB
retention:
  max_age: 7d
\`\`\`

A key \`a.b_c\` is the flag \`--a-b-c\` and the variable \`BROKER_A_B_C\`. Keys with a short name, such as \`shards.count\`, use it in all three places.
\`broker config print --origins\` shows what is in force and where it comes from, \`broker config check\` only checks. Anything unknown or out of
range stops the broker before it opens a port or touches a file: one line for each problem, exit code 2. Editors can check the file
with [configuration.schema.json](configuration.schema.json).

- A **size** is a number of bytes or has a unit: \`B\`, \`KiB\`, \`MiB\`, \`GiB\`, \`TiB\` (powers of 1,024).
- A **duration** has a unit: \`ms\`, \`s\`, \`m\`, \`h\`, \`d\`. Only \`0\` may go without.
- **HOST:PORT** has IPv6 addresses in brackets: \`[::1]:8081\`.`;

function section(key: Key): string {
  const { field } = key;
  const short = key.name === key.key ? '' : `, short \`${key.name}\``;
  return [
    `## \`${key.key}\``,
    '',
    field.doc,
    '',
    `- ${TYPE_WORDS[field.type]}: ${field.range}${short}`,
    `- default: ${field.defaultText}`,
    `- \`${flagOf(key.name)}\`, \`${variableOf(key.name)}\``,
  ].join('\n');
}

function betweenKeys(): string {
  return ['## Rules between keys', '', ...RULES.map((rule) => `- ${rule.text}`)].join('\n');
}

function otherVariables(): string {
  const rows = Object.entries(OTHER_VARIABLES).map(([name, doc]) => `- \`${name}\`: ${doc}`);
  return [
    '## Other variables',
    '',
    'Any other variable that begins with `BROKER_` is refused as a mistake, except those that Kubernetes makes for services',
    '(`BROKER_SERVICE_HOST`, `BROKER_PORT_8081_TCP`, …), which are ignored.',
    '',
    ...rows,
    '- `UV_THREADPOOL_SIZE`: threads for file system calls and DNS; the launcher sets it to 8 if it is not set.',
  ].join('\n');
}

/** JSON schema (2020-12) of the YAML file. */
export function configurationJsonSchema(): string {
  const schema = {
    $schema: 'https://json-schema.org/draft/2020-12/schema',
    title: 'Configuration file of the broker',
    ...groupSchema(SCHEMA),
  };
  // Short lists stay on one line, as the formatter of the repository wants them.
  const list = /\[\s+("[^"]*"(?:,\s+"[^"]*")*)\s+\]/g;
  const text = JSON.stringify(schema, null, 2);
  return `${text.replace(list, (_, items: string) => `[${items.replace(/,\s+/g, ', ')}]`)}\n`;
}

function groupSchema(tree: SchemaTree): object {
  const properties = Object.entries(tree).map(([name, node]) => [
    name,
    isField(node) ? fieldSchema(node) : sectionSchema(node),
  ]);
  return { type: 'object', additionalProperties: false, properties: Object.fromEntries(properties) };
}

/** A section whose key has a short name may also be that key's value. */
function sectionSchema(tree: SchemaTree): object {
  const short = Object.values(tree).find((node) => isField(node) && node.shortName !== null);
  const group = groupSchema(tree);
  return short !== undefined && isField(short) ? { anyOf: [fieldSchema(short), group] } : group;
}

function fieldSchema(field: AnyField): object {
  const { $schema: _, ...input } = z.toJSONSchema(field.schema, { io: 'input', unrepresentable: 'any' });
  const fallback =
    typeof field.default === 'function' || field.default === null ? {} : { default: plainDefault(field) };
  return { description: field.doc, ...input, ...fallback };
}

/** As one would write it in the file. */
function plainDefault(field: AnyField): unknown {
  return field.type === 'integer' || field.type === 'boolean' ? field.default : field.format(field.default);
}
