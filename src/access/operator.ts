import type { Caller } from './caller.ts';

/** The broker's own console, which looks into the space that it is asked for. Who may use it is decided where it is served. */
export class Operator implements Caller {
  readonly name = 'console';
  readonly tenant: string;
  readonly space: Uint8Array;
  readonly observes = true;
  readonly administers = false;

  constructor(tenant: string, space: Uint8Array) {
    this.tenant = tenant;
    this.space = space;
  }

  may(): boolean {
    return true;
  }

  mayFind(): boolean {
    return true;
  }

  demand(): null {
    return null;
  }
}
