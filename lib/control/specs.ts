/** From the config to what replication is asked for. */

import type { FrontendConfig, VolumeConfig } from '../config/resolved.ts';
import type { FrontendSpec, VolumeSpec } from '../replication/api.ts';

export function volumeSpec(
  config: VolumeConfig,
  secret: string | null,
  suspended: boolean,
): VolumeSpec {
  const { local, timeouts } = config;
  const place = local.metadata;
  return {
    name: config.name,
    node: local.name,
    native: {
      name: config.name,
      backing: local.backing,
      placement: place.placement,
      ...(place.placement === 'external' ? { metadata: place.file } : {}),
      ...(place.placement === 'offset' ? { metadataOffset: place.offsetBytes } : {}),
      ...(local.affinity.length > 0 ? { affinity: local.affinity } : {}),
      lockTimeoutMs: local.lockTimeoutMs,
      suspended,
    },
    onIoError: config.onIoError,
    listen: local.listen,
    peers: config.peers.map(({ name, address }) => ({
      name,
      ...address,
      protocol: config.protocol,
    })),
    secret,
    pingIntervalMs: timeouts.ping,
    peerTimeoutMs: timeouts.peerTimeout,
    connectTimeoutMs: timeouts.connectTimeout,
    retryMinMs: timeouts.retryMin,
    retryMaxMs: timeouts.retryMax,
  };
}

/** @param recoverId number of the ublk device to take over; null: a new one is made. */
export function frontendSpec(
  volume: string,
  config: FrontendConfig,
  recoverId: number | null,
): FrontendSpec {
  const { queueDepth } = config;
  if (config.kind === 'ublk') {
    const recover = recoverId !== null;
    const deviceId = recoverId ?? config.id;
    const { maxIoBytes } = config;
    return { kind: 'ublk', options: { deviceId, queueDepth, maxIoBytes, recover } };
  }
  const place =
    config.socket === null
      ? { host: config.host, port: config.port }
      : { socketPath: config.socket };
  const { maxConnections } = config;
  return {
    kind: 'nbd',
    options: { ...place, exportName: volume, maxConnections, queueDepth },
  };
}
