/** The part of check:kubernetes that runs in namespaces of its own: `check-inside.ts BINARIES FOLDER`. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseAllDocuments, stringify } from 'yaml';
import { PostgresServer } from '../servers/postgres.ts';
import { checkApi } from './check-api.ts';
import { BrokerChecks } from './check-brokers.ts';
import { CheckReport } from './check-report.ts';
import { ControlPlane } from './control-plane.ts';
import { GATEWAY, PodNetwork } from './pod-network.ts';

const [binaries, folder] = process.argv.slice(2) as [string, string];
/** Namespaces whose pods kwok plays. */
const PLAYED = ['embedded-single', 'cassandra'];
/** It is on a bridge that pods alone can reach. */
const ACCESS = 'host all all 127.0.0.1/32 password\nhost all all 10.244.0.0/16 password\n';

process.stdin.on('end', () => process.exit(130)).resume();
process.exitCode = await main();
// A pipe that is read keeps a process.
process.stdin.destroy();

async function main(): Promise<number> {
  const report = new CheckReport((text) => process.stdout.write(`${text}\n`));
  const network = new PodNetwork(folder);
  let plane: ControlPlane | null = null;
  let database: PostgresServer | null = null;
  try {
    const isThere = await report.check('a control plane starts', async () => {
      plane = await ControlPlane.start({ binaries, folder: join(folder, 'plane'), host: GATEWAY, stages: stages() });
      return `Kubernetes ${JSON.parse(await plane.kubectl('version', '-o', 'json')).serverVersion.gitVersion}`;
    });
    if (!isThere || plane === null) return 1;
    await checkApi(report, plane, folder, PLAYED);
    database = await PostgresServer.start(['listen_addresses=*', 'max_connections=200']);
    database.writeData('pg_hba.conf', ACCESS);
    await database.configure({});
    const brokers = new BrokerChecks({
      report,
      plane,
      network,
      folder,
      database: database.url.replace('127.0.0.1', GATEWAY),
    });
    report.skip('network policies let pass what they should', 'no network plugin is here to enforce them');
    report.skip(
      'the image, in its container',
      'pods are processes of this clone here; `npm test -- --suite image` runs it',
    );
    report.skip('the cassandra overlay with real brokers', 'its pods are played by kwok');
    try {
      await brokers.run();
    } finally {
      await brokers.stop();
    }
  } finally {
    await (plane as ControlPlane | null)?.stop();
    await database?.remove();
    process.stdout.write(`\n${report.table()}\n`);
  }
  return report.failed > 0 ? 1 : 0;
}

/** As they come, but pods of other namespaces are left alone. */
function stages(): string {
  const where = { key: '.metadata.namespace', operator: 'In', values: PLAYED };
  const parts = parseAllDocuments(readFileSync(join(folder, 'stages.yaml'), 'utf8')).map(
    (document) => document.toJS() as Stage,
  );
  for (const { spec } of parts) if (spec.resourceRef.kind === 'Pod') spec.selector.matchExpressions.push(where);
  return parts.map((part) => stringify(part)).join('---\n');
}

interface Stage {
  readonly spec: {
    readonly resourceRef: { readonly kind: string };
    readonly selector: { readonly matchExpressions: { key: string; operator: string; values: readonly string[] }[] };
  };
}
