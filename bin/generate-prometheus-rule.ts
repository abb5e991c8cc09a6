/** Writes the PrometheusRule of k8s/ from the rules that Docker's Prometheus has too; part of `npm run generate`. */
import { readFileSync, writeFileSync } from 'node:fs';

const HEAD = `# Made from deploy/prometheus/rules.yml by \`npm run generate\`: change it there.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: broker
spec:
`;

const rules = readFileSync(new URL('../deploy/prometheus/rules.yml', import.meta.url), 'utf8');
const target = new URL('../k8s/components/monitoring/prometheus-rule.yaml', import.meta.url);
writeFileSync(target, HEAD + rules.slice(rules.indexOf('groups:')).replace(/^(?=.)/gm, '  '));
