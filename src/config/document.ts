/** The configuration as documentation: Markdown, JSON schema, help. All made from the schema; a test keeps the files in docs/ equal. */
import { OTHER_VARIABLES } from './environment.ts';
import type { FieldType } from './field.ts';
import { flagOf, variableOf } from './names.ts';
import { RULES } from './rules.ts';
import { type AnyField, allKeys, isField, type Key, SCHEMA, type SchemaTree } from './schema.ts';
import { fileNameOf } from './sources.ts';

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
2. a variable: \`BROKER_LIMITS_BODY_BYTES=512KiB\`, \`BROKER_SHARDS=4\`; an empty one counts as not set, but that of a secret is refused;
3. a YAML file named by \`--config\` or \`BROKER_CONFIG\`:

\`\`\`yaml
# yaml-language-server: $schema=./configuration.schema.json
data_dir: /var/lib/broker
shards: 4
limits:
  body_bytes: 512KiB
store: postgres
postgres:
  url_file: /run/secrets/postgres-url
gossip:
  join: [10.0.0.1:7946, 10.0.0.2:7946]
  key_file: /run/secrets/gossip-key
\`\`\`

A key \`a.b_c\` is the flag \`--a-b-c\` and the variable \`BROKER_A_B_C\`. Keys with a short name, such as \`shards.count\`, use it in all three places.
Anything unknown or out of range stops the broker before it opens a port or touches a file: one line for each problem, exit code 2. Editors can
check the file with [configuration.schema.json](configuration.schema.json) ([an example](../examples/broker.yaml)).

| command | |
|---|---|
| \`broker config check --config broker.yaml\` | everything that can be wrong, found without a start: exit code 2 and one line for each problem, or \`-o json\` |
| \`broker config print --origins\` | what \`serve\` would run with, and where each value comes from |
| \`broker config show\` | what a running node runs with, and where each value comes from |
| \`broker config set log.level debug\` | changes a running node |

### Secrets
They are shown nowhere: \`***\` stands for them in what these commands print, in the log, in errors, in \`status\`, in metrics and in
\`broker debug bundle\`. Of a URL only the password is left out. Each can also be read from a file of its own: \`BROKER_GOSSIP_KEY_FILE\`,
\`--gossip-key-file\`, or \`key_file\` in the section \`gossip\`, as Docker and Kubernetes hand them over. A line break at its end does not count, and
it may have 64 KiB. In one place only one of the two may be given; between places the usual order decides. A secret as a flag is taken with a
warning, since every user of the machine sees it in \`ps\`; so is a file that every user can read.

### While it runs
Settings marked **live** are changed without a restart: \`broker config set KEY VALUE\` changes the node that it is connected to, at once, until the
node is started again or gets SIGHUP. SIGHUP reads the file again (and those of secrets), with the flags and variables of the start: what is live
is then as after a restart, and the log names what needs one. A file with a problem changes nothing, and the log says what is wrong. When the
terminal is closed that a broker was started on, it stops.

### Values
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
    ...(field.isSecret === true ? [secretLine(key.name)] : []),
    ...(field.isList === true ? ['- in the file also a list: `[a, b]`'] : []),
    ...(field.live === true ? [`- live: \`broker config set ${key.key} VALUE\`, or SIGHUP`] : []),
  ].join('\n');
}

function secretLine(name: string): string {
  const file = fileNameOf(name);
  return `- secret: shown as \`***\`; \`${flagOf(file)}\`, \`${variableOf(file)}\` or \`${file}\` in the file name a file that has it`;
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
    ...withShortNames(groupSchema(SCHEMA)),
  };
  return schemaText(schema);
}

const LIST_LENGTH_MAX = 100;

/** Short lists stay on one line, as the formatter of the repository wants them. */
export function schemaText(schema: object): string {
  const list = /\[\s+((?:"[^"]*"|[\w.]+)(?:,\s+(?:"[^"]*"|[\w.]+))*)\s+\]/g;
  const text = JSON.stringify(schema, null, 2);
  return `${text.replace(list, (whole: string, items: string) => {
    const line = `[${items.replace(/,\s+/g, ', ')}]`;
    return line.length > LIST_LENGTH_MAX ? whole : line;
  })}\n`;
}

/** Short names that are not those of sections stand beside them. */
function withShortNames(schema: { readonly properties: object }): object {
  const short = allKeys().filter(({ key, name }) => name !== key && !Object.hasOwn(SCHEMA, name));
  const fields = Object.fromEntries(short.flatMap(({ name, field }) => namedSchemas(name, field)));
  return { ...schema, properties: { ...schema.properties, ...fields } };
}

function groupSchema(tree: SchemaTree) {
  const properties = Object.entries(tree).flatMap(([name, node]): [string, object][] =>
    isField(node) ? namedSchemas(name, node) : [[name, sectionSchema(name, node)]],
  );
  return { type: 'object', additionalProperties: false, properties: Object.fromEntries<object>(properties) };
}

/** A section may also be the value of the key that has its name as its short one. */
function sectionSchema(name: string, tree: SchemaTree): object {
  const short = Object.values(tree).find((node) => isField(node) && node.shortName === name);
  const group = groupSchema(tree);
  return short !== undefined && isField(short) ? { anyOf: [fieldSchema(short), group] } : group;
}

function fieldSchema(field: AnyField): object {
  const fallback =
    typeof field.default === 'function' || field.default === null ? {} : { default: plainDefault(field) };
  const live = field.live === true ? ' It can be changed while the broker runs.' : '';
  const description = `${field.doc}${live} (${field.range}; default: ${field.defaultText})`;
  return { description, ...field.jsonSchema, ...fallback };
}

/** A key and, of a secret, the file that has it instead. */
function namedSchemas(name: string, field: AnyField): [string, object][] {
  const itself: [string, object] = [name, fieldSchema(field)];
  if (field.isSecret !== true) return [itself];
  const description = `Path of a file that has the value of ${name}, instead of that. ${field.doc}`;
  return [itself, [fileNameOf(name), { description, type: 'string', minLength: 1 }]];
}

/** As one would write it in the file. */
function plainDefault(field: AnyField): unknown {
  return field.type === 'integer' || field.type === 'boolean' ? field.default : field.format(field.default);
}
