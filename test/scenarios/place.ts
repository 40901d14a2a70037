// Where the scenarios run: over NBD on this machine, or over ublk in the virtual machine. Everything that differs
// between the two is here.
import { readdirSync } from 'node:fs';
import { truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { TimeoutsMs } from '../../lib/config/resolved.ts';
import { BlockDevice } from '../tools/block-device.ts';
import { NbdClient } from '../tools/nbd-client.ts';
import { PATIENCE } from '../tools/patience.ts';
import { modprobe, ramDisks, type ScenarioContext } from '../vm/guest/support.ts';

const MIB = 1 << 20;

/** What both kinds of device offer to a writer. */
export interface Device {
  readonly sizeBytes: number;
  read(offset: number, bytes: number): Promise<Buffer>;
  write(offset: number, data: Uint8Array): Promise<void>;
  flush(): Promise<void>;
  close(): Promise<void>;
}

export interface Place {
  readonly kind: 'NBD' | 'ublk';
  /** How long a state may take to come, and a command to end. */
  readonly patienceMs: number;
  /** The limit of a scenario that is marked as 1; others are multiples of it. */
  readonly scenarioMs: number;
  readonly timeouts: TimeoutsMs;
  /** Bytes of one node's disk unless a scenario says otherwise. */
  readonly backingBytes: number;
  /** Starting a command takes so long that status is asked over the control socket. */
  readonly commandsAreSlow: boolean;
  /** Blocks that one step of a scenario writes. */
  readonly blocks: number;
  /** Makes `count` disks; over ublk there are 4 at most. */
  disks(t: ScenarioContext, directory: string, count: number, bytes: number): Promise<string[]>;
  /** The frontend of a node's config; `index` is the node's. */
  frontend(directory: string, node: string, index: number): Record<string, unknown>;
  open(device: string, volume: string, sizeBytes: number): Promise<Device>;
  /** The part of fio's options that names the device and the way to it. */
  fio(device: string, volume: string): Record<string, string | number>;
}

export const nbdPlace: Place = {
  kind: 'NBD',
  patienceMs: 20_000 * PATIENCE,
  scenarioMs: 45_000 * PATIENCE,
  timeouts: {
    ping: 200,
    // A pause of one process does not cost the link. What ends a link here closes its sockets, which is noticed at once.
    peerTimeout: 12_000 * PATIENCE,
    connectTimeout: 1_000 * PATIENCE,
    retryMin: 20,
    retryMax: 200,
    recoveryTimeout: 2_000 * PATIENCE,
  },
  backingBytes: 40 * MIB,
  commandsAreSlow: false,
  blocks: 500,
  async disks(_t, directory, count, bytes) {
    const paths = Array.from({ length: count }, (_, index) => join(directory, `disk${index}`));
    for (const path of paths) {
      await writeFile(path, '');
      await truncate(path, bytes);
    }
    return paths;
  },
  frontend: (directory, node) => ({ kind: 'nbd', socket: join(directory, `${node}.nbd`) }),
  open: (device, volume) => NbdClient.connect(device, volume),
  fio: (device, volume) => ({ ioengine: 'nbd', uri: `nbd+unix:///${volume}?socket=${device}` }),
};

/** A scenario that fails must not leave a device without a server, on which everything hangs. */
async function removeDevices(t: ScenarioContext): Promise<void> {
  const program = join(t.checkout, 'build/cmake/tidemark-ublk-memory');
  for (const name of readdirSync('/dev')) {
    const id = /^ublkc(\d+)$/.exec(name)?.[1];
    if (id !== undefined) await t.run([program, 'remove', `id=${id}`], { anyStatus: true });
  }
}

export const ublkPlace: Place = {
  kind: 'ublk',
  patienceMs: 90_000,
  scenarioMs: 180_000,
  timeouts: {
    ping: 1_000,
    peerTimeout: 8_000,
    connectTimeout: 5_000,
    retryMin: 200,
    retryMax: 1_000,
    recoveryTimeout: 8_000,
  },
  backingBytes: 40 * MIB,
  commandsAreSlow: true,
  blocks: 150,
  async disks(t, _directory, count, bytes) {
    await modprobe(t, 'ublk_drv');
    t.undo('remove what is left of ublk devices', () => removeDevices(t));
    return (await ramDisks(t, bytes)).slice(0, count);
  },
  frontend: (_directory, _node, index) => ({ kind: 'ublk', id: index }),
  open: (device, _volume, sizeBytes) => BlockDevice.open(device, sizeBytes),
  fio: (device) => ({ ioengine: 'libaio', direct: 1, filename: device }),
};
