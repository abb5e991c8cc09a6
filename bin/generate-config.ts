/** Writes docs/configuration.md, docs/configuration.schema.json and docs/access.schema.json; part of `npm run generate`. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { accessJsonSchema } from '../src/config/access-file.ts';
import { configurationJsonSchema, configurationMarkdown } from '../src/config/document.ts';

const docs = join(dirname(dirname(fileURLToPath(import.meta.url))), 'docs');
mkdirSync(docs, { recursive: true });
writeFileSync(join(docs, 'configuration.md'), configurationMarkdown());
writeFileSync(join(docs, 'configuration.schema.json'), configurationJsonSchema());
writeFileSync(join(docs, 'access.schema.json'), accessJsonSchema());
