import type { ConsoleCaller } from './ports.ts';

/** The space of whoever uses the console: none, so that it shows the subjects of all tenants. */
export const EVERYBODY = new Uint8Array(0);

/** Whether somebody is in the space of a tenant. Null: nobody has to be logged in. */
export function isBound(caller: ConsoleCaller | null): boolean {
  return caller !== null && caller.space.length > 0;
}
