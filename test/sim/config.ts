/** The config of a simulated node, as lib/config resolves one. */
import type { NodeConfig, VolumeConfig } from '../../lib/config/resolved.ts';
import type { Address } from '../../lib/replication/transport.ts';
import type { Plan } from './plan.ts';

export const VOLUME = 'vol';

interface Named {
  readonly name: string;
  readonly index: number;
  readonly address: Address;
}

export function makeConfig(plan: Plan, self: Named, nodes: readonly Named[]): VolumeConfig {
  const { policy } = plan;
  const local = (node: Named): NodeConfig => ({
    name: node.name,
    backing: `/sim/${node.name}`,
    metadata:
      plan.metadata === 'external'
        ? { placement: 'external', file: `/sim/${node.name}.md` }
        : { placement: 'end' },
    address: node.address,
    listen: node.address,
    frontend:
      plan.frontend === 'ublk'
        ? { kind: 'ublk', id: -1, queueDepth: 32, maxIoBytes: 1 << 20 }
        : {
            kind: 'nbd',
            socket: `/sim/${node.name}.sock`,
            host: '127.0.0.1',
            port: 10809,
            queueDepth: 32,
            maxConnections: 16,
          },
    affinity: [],
    lockTimeoutMs: 0,
  });
  return {
    name: VOLUME,
    protocol: plan.protocol,
    onIoError: plan.onIoError,
    secret: plan.secret === null ? null : { value: plan.secret },
    chunkBytes: plan.chunkBytes,
    extentBytes: plan.extentBytes,
    activityLogExtents: plan.logExtents,
    timeouts: plan.timeouts,
    policy: {
      asyncWindow:
        policy.window === 'function'
          ? { kind: 'function' }
          : { kind: 'value', value: { writes: policy.windowWrites, bytes: policy.windowBytes } },
      flushIntervalMs:
        policy.flushInterval === 'function'
          ? { kind: 'function' }
          : { kind: 'value', value: policy.flushIntervalMs },
      selectPeers:
        policy.selectPeers === 'function'
          ? { kind: 'function' }
          : {
              kind: 'value',
              value: nodes.filter((node) => node.index !== self.index).map(({ name }) => name),
            },
      deadlineMs: policy.deadlineMs,
    },
    local: local(self),
    peers: nodes.filter((node) => node.index !== self.index).map(local),
  };
}
