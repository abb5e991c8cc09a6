/** Mistakes in the rendered postgres overlay, one for each thing that a rule is there to see. */
export interface Mistake {
  /** The beginning of the rule's name. */
  readonly rule: string;
  readonly from: string | RegExp;
  readonly to: string;
  /** A part of what the rule says. */
  readonly said: string;
}

export const MISTAKES: readonly Mistake[] = [
  { rule: 'the image', from: /image: broker:[\d.]+/, to: 'image: broker:latest', said: 'broker:latest' },
  { rule: 'the image', from: /image: broker:[\d.]+/, to: 'image: broker', said: 'the image is broker,' },
  { rule: 'three probes', from: 'path: /readyz', to: 'path: /healthz', said: 'readiness does not ask' },
  {
    rule: 'three probes',
    from: /(livenessProbe:\n +failureThreshold: 6\n +httpGet:\n +path: )\/healthz/,
    to: '$1/readyz',
    said: 'liveness asks for more',
  },
  { rule: 'three probes', from: 'failureThreshold: 900', to: 'failureThreshold: 9', said: 'a start may take 18 s' },
  { rule: 'three probes', from: /readinessProbe/, to: 'notAProbe', said: 'a probe is missing' },
  { rule: 'resources', from: 'memory: 2Gi', to: 'memory: 512Mi', said: 'memory: 1Gi is asked for' },
  { rule: 'resources', from: /limits:\n/, to: 'limits:\n            cpu: "2"\n', said: 'cpu has a limit' },
  { rule: 'Pod Security', from: 'enforce: restricted', to: 'enforce: baseline', said: 'enforces baseline' },
  { rule: 'Pod Security', from: 'runAsUser: 10001', to: 'runAsUser: 0', said: 'it does not run as' },
  { rule: 'Pod Security', from: 'type: RuntimeDefault', to: 'type: Unconfined', said: 'no seccomp profile' },
  { rule: 'Pod Security', from: 'allowPrivilegeEscalation: false', to: '', said: 'privileges may be gained' },
  { rule: 'Pod Security', from: '- ALL', to: '- CHOWN', said: 'capabilities are left' },
  { rule: 'Pod Security', from: 'readOnlyRootFilesystem: true', to: '', said: 'can be written' },
  { rule: 'the data directory', from: 'mountPath: /data', to: 'mountPath: /var/data', said: '/data is no volume' },
  { rule: 'several brokers', from: 'podManagementPolicy: Parallel', to: '', said: 'waits for itself' },
  { rule: 'several brokers', from: /rollingUpdate:\n +partition: 0/, to: '', said: 'rollingUpdate is not said' },
  { rule: 'several brokers', from: 'maxUnavailable: 1', to: 'maxUnavailable: 2', said: 'more than one' },
  { rule: 'several brokers', from: 'topologyKey: kubernetes.io/hostname', to: 'topologyKey: rack', said: 'not spread' },
  {
    rule: 'several brokers',
    from: /(maxUnavailable: 1\n +selector:\n +matchLabels:\n +app.kubernetes.io\/name: )broker/,
    to: '$1brokers',
    said: 'the budget counts other pods',
  },
  {
    rule: 'a broker may follow',
    from: '  verbs:\n  - list\n',
    to: '  verbs:\n  - get\n  - list\n',
    said: 'the rules are',
  },
  {
    rule: 'a broker may follow',
    from: '  - endpointslices',
    to: '  - endpointslices\n  - pods',
    said: 'the rules are',
  },
  {
    rule: 'a broker may follow',
    from: 'automountServiceAccountToken: true',
    to: 'automountServiceAccountToken: false',
    said: 'token in the pod: false',
  },
  {
    rule: 'a broker may follow',
    from: /(kind: ServiceAccount\n +name: )broker/,
    to: '$1default',
    said: 'another account',
  },
  { rule: 'every port has a name', from: 'targetPort: raft', to: 'targetPort: 12000', said: 'is no port of the pod' },
  { rule: 'every port has a name', from: / +name: gossip-udp\n( +protocol: UDP\n +- )/, to: '$1', said: 'has no name' },
  { rule: 'there is a service', from: 'publishNotReadyAddresses: true', to: '', said: 'keeps back' },
  { rule: 'there is a service', from: 'clusterIP: None', to: '', said: 'not headless' },
  {
    rule: 'there is a service',
    from: / {2}selector:\n {4}app.kubernetes.io\/name: broker\n {2}type/,
    to: '  selector:\n    app.kubernetes.io/name: other\n  type',
    said: 'selects others',
  },
  { rule: 'every port has a policy', from: '- port: gossip-udp\n      protocol: UDP', to: '', said: 'no policy for' },
  { rule: 'every port has a policy', from: '- port: raft', to: '- port: rafts', said: 'for what is no port' },
  {
    rule: 'every port has a policy',
    from: /- namespaceSelector: \{\}\n +podSelector:\n +matchLabels:\n +broker-client: "true"/,
    to: '- namespaceSelector: {}',
    said: 'lets everybody in',
  },
  {
    rule: 'every port has a policy',
    from: /- podSelector:\n( +matchLabels:\n) +app.kubernetes.io\/name: broker\n( +ports:\n +- port: raft)/,
    to: '- podSelector:\n$1          broker-client: "true"\n$2',
    said: 'not only brokers',
  },
  {
    rule: 'what is scraped',
    from: /port: admin(\n +relabelings)/,
    to: 'port: metrics$1',
    said: 'scrapes a port',
  },
  { rule: 'what is scraped', from: 'app.kubernetes.io/component: peers\n', to: 'x: y\n', said: 'selects 0 services' },
  { rule: 'the broker starts', from: 'BROKER_SHARDS: "1"', to: 'BROKER_SHARD: "1"', said: 'BROKER_SHARD' },
  { rule: 'the broker starts', from: 'BROKER_RAFT_VOTERS: "3"', to: 'BROKER_RAFT_VOTERS: "4"', said: 'raft.voters' },
  {
    rule: 'a variable is made',
    from: 'value: $(POD_NAME).broker-peers.$(POD_NAMESPACE).svc:8081',
    to: 'value: $(HOSTNAME).broker-peers:8081',
    said: 'BROKER_GRPC_ADVERTISE would be $(HOSTNAME)',
  },
  { rule: 'the broker listens', from: 'containerPort: 12000', to: 'containerPort: 12001', said: 'port raft is 12001' },
  {
    rule: 'the broker listens',
    from: 'LISTEN: 0.0.0.0:8000',
    to: 'LISTEN: 127.0.0.1:8000',
    said: 'admin.listen is 127',
  },
  { rule: 'a node has', from: 'serviceName: broker-peers', to: 'serviceName: broker', said: 'grpc.advertise is' },
  { rule: 'a node has', from: 'value: $(POD_IP):7946', to: 'value: 10.0.0.1:7946', said: 'gossip.advertise' },
  { rule: 'a node has', from: 'replicas: 3', to: 'replicas: 5', said: 'another number' },
  { rule: 'a stop has', from: 'terminationGracePeriodSeconds: 60', to: '', said: 'killed after 30 s' },
  { rule: 'a stop has', from: 'seconds: 5', to: 'seconds: 0', said: 'SIGTERM comes' },
  {
    rule: 'secrets come',
    from: '  BROKER_STORE: postgres',
    to: '  BROKER_POSTGRES_URL: postgres://u:p@h/d\n  BROKER_STORE: postgres',
    said: 'postgres.url for everybody',
  },
  { rule: 'no variables', from: 'enableServiceLinks: false', to: '', said: 'enableServiceLinks' },
];
