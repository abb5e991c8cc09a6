/** Writes docs/configuration.md and docs/configuration.schema.json; part of `npm run generate`. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { configurationJsonSchema, configurationMarkdown } from '../src/config/document.ts';

const docs = join(dirname(dirname(fileURLToPath(import.meta.url))), 'docs');
mkdirSync(docs, { recursive: true });
writeFileSync(join(docs, 'configuration.md'), configurationMarkdown());
writeFileSync(join(docs, 'configuration.schema.json'), configurationJsonSchema());
