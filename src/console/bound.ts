import type { ConsoleCaller } from './ports.ts';

/** Whether somebody is in the space of a tenant. Null: nobody has to be logged in. */
export function isBound(caller: ConsoleCaller | null): boolean {
  return caller !== null && caller.space.length > 0;
}
