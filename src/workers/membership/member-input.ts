import { BrokerError } from '../../base/errors.ts';
import { NAME, NAME_RULE } from '../../base/node-name.ts';
import type { Member as WireMember } from '../../grpc/gen/broker/v1/cluster.ts';
import type { Member } from '../../replica/types.ts';
import { PROTOCOL_VERSION } from '../../replica/types.ts';

const INSTANCE_ID = /^[0-9a-f]{32}$/;
const ADDRESS = /^(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}):([1-9]\d{0,4})$/;
const ANY_HOST = /^(0+(\.0+)*|\[[0:]+\]):/;
const PORT_MAX = 65_535;

/** The member that a request describes. BrokerError MEMBER_INVALID, with the rule that it broke. */
export function checkMember(wire: WireMember | undefined): Member {
  if (wire === undefined) throw new BrokerError('MEMBER_INVALID', 'member is missing');
  checkNodeId(wire.nodeId);
  if (wire.instanceId === '')
    throw new BrokerError('MEMBER_INVALID', 'instance_id is missing: it is in node.json of the data directory');
  checkInstanceId(wire.instanceId);
  checkAddress('raft_address', wire.raftAddress);
  checkAddress('grpc_address', wire.grpcAddress);
  if (wire.raftAddress === wire.grpcAddress) {
    throw new BrokerError('MEMBER_INVALID', 'raft_address and grpc_address are the same');
  }
  return {
    node: wire.nodeId,
    instance: wire.instanceId,
    raft: wire.raftAddress,
    grpc: wire.grpcAddress,
    protocol: wire.protocol === 0 ? PROTOCOL_VERSION : wire.protocol,
  };
}

export function checkNodeId(nodeId: string): void {
  if (NAME.test(nodeId)) return;
  throw new BrokerError('MEMBER_INVALID', nodeId === '' ? 'node_id is missing' : `node_id must be ${NAME_RULE}`);
}

/** '' stands for whichever it is. */
export function checkInstanceId(instanceId: string): void {
  if (instanceId === '' || INSTANCE_ID.test(instanceId)) return;
  throw new BrokerError('MEMBER_INVALID', 'instance_id must be 32 digits of lower case hex');
}

function checkAddress(field: string, address: string): void {
  const port = Number(ADDRESS.exec(address)?.[2] ?? 0);
  if (port === 0 || port > PORT_MAX) {
    throw new BrokerError('MEMBER_INVALID', `${field} must be HOST:PORT, with IPv6 addresses in brackets`);
  }
  if (ANY_HOST.test(address))
    throw new BrokerError('MEMBER_INVALID', `${field} must be one that others can connect to`);
}
