import { Command } from 'commander';
import { formatEndpoint, isAnyAddress, parseEndpoint } from '../../config/endpoint.ts';
import type { Environment } from '../../config/environment.ts';
import type { Context } from '../context.ts';
import { EXIT } from '../failure.ts';
import { addressesOf, type ClientOptions, example, withClient, withConnection } from '../options.ts';

/** For probes: the exit code is the answer. Each address is asked for itself, since any of them would do for other commands. */
export function healthCommand(context: Context, outcome: { code: number }): Command {
  const command = withClient(new Command('health'))
    .description(
      'Ask for the health of a broker as gRPC has it; exit code 0 if it serves, 1 if not, 3 if none answers.',
    )
    .argument('[service]', 'such as broker.Broker', '')
    .action(async (service: string, options: ClientOptions) => {
      const address = options.address ?? ownAddress(context.environment);
      const addresses = addressesOf(context, address === null ? {} : { address });
      for (const asked of addresses) {
        await withConnection(context, { ...options, address: asked }, async (connection) => {
          const status = await connection.health(service);
          if (status !== 'SERVING') outcome.code = EXIT.failed;
          await context.out.record({ address: asked, service, status }, options.output);
        });
      }
    });
  return example(command, 'broker health --address 127.0.0.1:8081 && echo serving');
}

/**
 * Where the broker of this environment listens, so that a probe inside its container needs no address of its own. null: nothing says so, or
 * BROKER_ADDRESS does.
 */
function ownAddress(environment: Environment): string | null {
  if (environment.BROKER_ADDRESS) return null;
  const endpoint = parseEndpoint(environment.BROKER_GRPC_LISTEN ?? '');
  if (endpoint === null || endpoint.port === 0) return null;
  const loopback = endpoint.host.includes(':') ? '::1' : '127.0.0.1';
  return formatEndpoint(isAnyAddress(endpoint) ? { ...endpoint, host: loopback } : endpoint);
}
