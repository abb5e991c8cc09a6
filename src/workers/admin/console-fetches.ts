import { Operator } from '../../access/operator.ts';
import { BrokerError } from '../../base/errors.ts';
import { isTenant, spaceOf, TENANT_DEFAULT } from '../../base/subject-space.ts';
import type { Done } from '../../grpc/engine.ts';
import { statusOf } from '../../grpc/status.ts';
import type { Dispatcher } from '../front/dispatcher.ts';

/** The messages that the console shows, of whichever tenant. */
export class ConsoleFetches {
  readonly #dispatcher: Pick<Dispatcher, 'fetch'>;

  constructor(dispatcher: Pick<Dispatcher, 'fetch'>) {
    this.#dispatcher = dispatcher;
  }

  /** `tenant`: in whose space the subject is; '': in none. */
  fetch(request: Buffer, deadlineMs: number, done: Done, tenant: string): void {
    const name = tenant === '' ? TENANT_DEFAULT : tenant;
    if (isTenant(name)) this.#dispatcher.fetch(request, deadlineMs, done, new Operator(name, spaceOf(name)), null);
    else done(statusOf(new BrokerError('TENANT_INVALID')));
  }
}
