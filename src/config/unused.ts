/** Settings that were given and have no effect beside the others: somebody may believe that they have one. */
import type { ConfigRow } from './load.ts';
import { hasGossip } from './membership-rules.ts';
import type { Config } from './schema.ts';

interface Use {
  readonly keys: readonly string[];
  readonly isUsed: (config: Config) => boolean;
  /** What would make use of them. */
  readonly needs: string;
}

const USES: readonly Use[] = [
  {
    keys: ['access.audit_max_bytes'],
    isUsed: ({ access }) => access.auditFile !== null,
    needs: 'access.audit_file',
  },
  {
    keys: ['discovery.dns_name', 'discovery.dns_servers', 'discovery.interval'],
    isUsed: ({ discovery }) => discovery.kind === 'dns',
    needs: 'discovery dns',
  },
  {
    keys: [
      'discovery.kubernetes_service',
      'discovery.kubernetes_namespace',
      'discovery.kubernetes_port_name',
      'discovery.kubernetes_config',
    ],
    isUsed: ({ discovery }) => discovery.kind === 'kubernetes',
    needs: 'discovery kubernetes',
  },
  {
    keys: ['gossip.key', 'gossip.label', 'gossip.profile'],
    isUsed: hasGossip,
    needs: 'gossip, gossip.join, discovery or bootstrap_expect',
  },
];

/** One line each. */
export function unusedSettings(config: Config, rows: readonly ConfigRow[]): string[] {
  return USES.filter(({ isUsed }) => !isUsed(config)).flatMap(({ keys, needs }) =>
    rows
      .filter(({ key, origin }) => keys.includes(key) && origin.source !== 'default')
      .map(({ key, origin }) => `${key} (${origin.place}): has no effect without ${needs}`),
  );
}
