import type { Server } from '@grpc/grpc-js';
import { AdminService } from './gen/broker/v1/admin.ts';
import type { VerifyProgress, VerifyRequest } from './gen/broker/v1/inspect.ts';
import { tolerant } from './operator-calls.ts';
import { type Answers, streamed } from './operator-streams.ts';

/** What holds a store against its log, beside the work of a node. */
export interface VerifyPort {
  /** Of the subjects that a caller of that space may see. Resolves when all was read, or the client has gone. Rejections are BrokerErrors: VERIFY_RUNNING, STORE_UNAVAILABLE; any other is a defect. */
  verify(request: VerifyRequest, answers: Answers<VerifyProgress>, space: Uint8Array): Promise<void>;
}

export function addVerify(server: Server, port: VerifyPort, onDefect: (error: unknown) => void): void {
  server.addService(
    { verify: tolerant(AdminService.verify) },
    {
      verify: streamed(
        (request: VerifyRequest, answers: Answers<VerifyProgress>, { space }) => port.verify(request, answers, space),
        onDefect,
      ),
    },
  );
}
