/** Every kind of store as flags of a broker. */
import { randomBytes } from 'node:crypto';
import { chooseCassandra, choosePostgres, ServerMissing } from '../servers/chosen-server.ts';

export interface Store {
  readonly name: string;
  /** Of a store that is new; a text: why there is none here. `onEnd` hears what to do when it is not needed any more. */
  readonly flags: (onEnd: (end: () => unknown) => void) => Promise<string[] | string>;
}

export const STORES: readonly Store[] = [
  { name: 'embedded', flags: async () => [] },
  { name: 'postgres', flags: (onEnd) => flagsOn(choosePostgres, onEnd) },
  { name: 'cassandra', flags: (onEnd) => flagsOn(chooseCassandra, onEnd) },
];

async function flagsOn(
  choose: typeof choosePostgres | typeof chooseCassandra,
  onEnd: (end: () => unknown) => void,
): Promise<string[] | string> {
  try {
    const server = await choose();
    onEnd(() => server.remove());
    return server.flags(`t_${randomBytes(6).toString('hex')}`);
  } catch (error) {
    if (error instanceof ServerMissing) return error.message;
    throw error;
  }
}
