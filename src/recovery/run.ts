/** Entry point of the offline commands: arms the failpoints of tests, and turns what stops a run into an answer. */
import { armFailpoints } from '../base/failpoint.ts';
import { backup } from './backup.ts';
import { recover } from './recover.ts';
import { outcomeOf } from './refusal.ts';
import { restore } from './restore.ts';
import type { Recovery } from './types.ts';
import { verify } from './verify.ts';

/** `failpoints`: see src/base/failpoint.ts. */
export function recovery(failpoints: string): Recovery {
  armFailpoints(failpoints);
  return {
    recover: (request) => outcomeOf(() => recover(request)),
    restore: (request) => outcomeOf(() => restore(request)),
    // It writes over nothing, also not over what it has written itself.
    backup: (request) => outcomeOf(() => backup(request), 'run the command again with another folder: --to FOLDER'),
    verify: (request) => outcomeOf(() => verify(request)),
  };
}
