/** Writes docs/errors.md from the catalogue; part of `npm run generate`. */
import { writeFileSync } from 'node:fs';
import { errorsMarkdown } from '../src/base/errors-document.ts';

writeFileSync(new URL('../docs/errors.md', import.meta.url), errorsMarkdown());
