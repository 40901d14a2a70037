// Two nodes (or three) on this machine, with a network between them that a scenario can cut.
import { strict as assert } from 'node:assert';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TimeoutsMs } from '../../lib/config/resolved.ts';
import { freePorts, LinkProxy } from '../tools/link-proxy.ts';
import type { ScenarioContext } from '../vm/guest/support.ts';
import { assertSameData } from './disks.ts';
import type { Ledger, Load } from './ledger.ts';
import { ClusterNode } from './node.ts';
import type { Device, Place } from './place.ts';

const MIB = 1 << 20;

export type MetadataKind = 'internal-end' | 'internal-start' | 'offset' | 'external';

export interface ClusterOptions {
  /** Bytes of each node's disk. */
  backingBytes?: number;
  metadata?: MetadataKind;
  /** Fields of the volume that differ from the defaults below. */
  volume?: Record<string, unknown>;
  /** Fields of one node's view of the volume: it gets a config of its own. */
  volumeOf?: Record<string, Record<string, unknown>>;
  timeouts?: Partial<TimeoutsMs>;
  /** TypeScript inside the volume's braces: policy functions. */
  source?: string;
  /** Files beside the configs, mode 0600. */
  files?: Record<string, string>;
  /** A third node, gamma; not with external metadata. */
  third?: boolean;
  /** A second volume of alpha and beta, in the same daemons and at the same addresses; only over NBD. */
  second?: boolean;
}

/** A load on alpha's device, and what is known of its blocks. */
export interface Working {
  device: Device;
  ledger: Ledger;
  load: Load;
}

const VOLUME = 'r0';
/** The second volume, of a cluster that has one. */
export const SECOND_VOLUME = 'r1';
/** Where metadata 'offset' is put, in a disk of the default size: the data is what lies before. */
const METADATA_OFFSET = 24 * MIB;
/** What alpha says of a link over which nothing is copied to it. */
const LINKED = new Set(['ExchangingMaps', 'SyncSource', 'Connected']);

export class Cluster {
  readonly directory: string;
  readonly nodes: readonly ClusterNode[];
  readonly alpha: ClusterNode;
  readonly beta: ClusterNode;
  readonly link: LinkProxy;

  private constructor(directory: string, nodes: readonly ClusterNode[], link: LinkProxy) {
    this.directory = directory;
    this.nodes = nodes;
    [this.alpha, this.beta] = nodes as [ClusterNode, ClusterNode];
    this.link = link;
  }

  /** The third node, of a cluster that has one. */
  get gamma(): ClusterNode {
    const third = this.nodes[2];
    if (third === undefined) throw new Error('the cluster has no third node');
    return third;
  }

  /** Disks, configs and the network; nothing is created or started yet. */
  static async prepare(
    t: ScenarioContext,
    place: Place,
    options: ClusterOptions = {},
  ): Promise<Cluster> {
    // Short, for the sake of Unix sockets.
    const directory = mkdtempSync(join(tmpdir(), 'c-'));
    t.undo('remove the cluster', () => rmSync(directory, { recursive: true, force: true }));
    const runFolder = join(directory, 'run');
    mkdirSync(runFolder);
    const metadata = options.metadata ?? 'internal-end';
    const backingBytes = options.backingBytes ?? place.backingBytes;
    const disks = await place.disks(t, directory, options.second ? 6 : 4, backingBytes);

    const names = options.third ? ['alpha', 'beta', 'gamma'] : ['alpha', 'beta'];
    const listen = await freePorts(names.length);
    const link = await LinkProxy.start(listen);
    t.undo('close the network', () => link.close());
    const ports = link.ports;

    const where = (index: number) => ({
      address: `127.0.0.1:${ports[index]}`,
      listen: `127.0.0.1:${listen[index]}`,
    });
    const nodes = Object.fromEntries(
      names.map((name, index) => [
        name,
        {
          backing: disks[index],
          metadata: metadataOf(metadata, disks[index + 2] ?? ''),
          ...where(index),
          frontend: place.frontend(directory, name, index),
        },
      ]),
    );
    const volume = {
      name: VOLUME,
      extentBytes: '1MiB',
      activityLogExtents: 16,
      timeouts: { ...place.timeouts, ...options.timeouts },
      ...options.volume,
      nodes,
    };
    const secondNode = (name: string, index: number) => ({
      backing: disks[index + 4],
      ...where(index),
      frontend: place.frontend(directory, `${name}-second`, index),
    });
    const second = {
      ...volume,
      name: SECOND_VOLUME,
      timeouts: place.timeouts,
      nodes: { alpha: secondNode('alpha', 0), beta: secondNode('beta', 1) },
    };
    for (const [name, text] of Object.entries(options.files ?? {})) {
      writeFileSync(join(directory, name), text, { mode: 0o600 });
    }
    const writeConfig = (name: string, fields: Record<string, unknown>) => {
      const { source } = options;
      const isPlain = place.commandsAreSlow && source === undefined && !options.second;
      const path = join(directory, `${name}.config.${isPlain ? 'mjs' : 'ts'}`);
      const more = options.second ? [second] : [];
      writeFileSync(
        path,
        isPlain ? plainConfigText(fields) : configText([fields, ...more], source),
      );
      return path;
    };
    const config = writeConfig('tidemark', volume);
    const configs = names.map((name) => {
      const own = options.volumeOf?.[name];
      return own === undefined ? config : writeConfig(name, { ...volume, ...own });
    });
    const members = names.map(
      (name, index) =>
        new ClusterNode(t, place, {
          name,
          volume: VOLUME,
          paths: {
            cli: join(t.checkout, 'dist/cli/main.js'),
            config: configs[index]!,
            runFolder,
            backing: disks[index]!,
            metadata: metadata === 'external' ? disks[index + 2]! : null,
          },
        }),
    );
    return new Cluster(directory, members, link);
  }

  /** With metadata on both disks, and no daemon. */
  static async create(
    t: ScenarioContext,
    place: Place,
    options: ClusterOptions = {},
  ): Promise<Cluster> {
    const cluster = await Cluster.prepare(t, place, options);
    await Promise.all(cluster.nodes.map((node) => node.create()));
    return cluster;
  }

  /** Both run, alpha is primary, and beta has everything. */
  static async form(
    t: ScenarioContext,
    place: Place,
    options: ClusterOptions = {},
  ): Promise<Cluster> {
    const cluster = await Cluster.create(t, place, options);
    const [first, ...others] = cluster.nodes;
    await Promise.all([first!.up('--primary', '--force'), ...others.map((node) => node.up())]);
    await cluster.synced();
    return cluster;
  }

  /** Waits until alpha has its peer again, in step or not. */
  async linked(): Promise<void> {
    await this.alpha.until('linked', (_, { connection }) => LINKED.has(connection));
  }

  /** Waits until alpha and beta say that they are in step. */
  async synced(): Promise<void> {
    await Promise.all([this.alpha.synced(), this.beta.synced()]);
  }

  /** Throws unless the disks of alpha and beta have the same data. */
  async assertSameData(): Promise<void> {
    await assertSameData(this.alpha.dataArea, this.beta.dataArea);
  }

  /** Ends a load that goes on, and throws unless the device and both disks have what it wrote. */
  async assertWhole({ device, ledger, load }: Working): Promise<void> {
    assert.equal(await load.stop(), null);
    await device.flush();
    await this.synced();
    await ledger.verify(device, 'the device');
    await this.assertSameData();
  }

  /** A clean end of all that run, which must succeed. */
  async down(): Promise<void> {
    for (const node of this.nodes) {
      if (node.daemon === null) continue;
      const exit = await node.stop();
      if (exit.status !== 0) {
        throw new Error(`${node.name} ended with ${exit.signal ?? exit.status} after SIGTERM`);
      }
    }
  }
}

function metadataOf(kind: MetadataKind, file: string): unknown {
  if (kind === 'external') return { file };
  if (kind === 'offset') return { offset: METADATA_OFFSET };
  return kind;
}

/** The same in JavaScript, which needs no transformation: that is a third of what a start takes. */
function plainConfigText(volume: Record<string, unknown>): string {
  return `export default ${JSON.stringify(volume, null, 2)};\n`;
}

/** A config script. `source`, of the first volume, begins on its third line. */
function configText(volumes: ReadonlyArray<Record<string, unknown>>, source = ''): string {
  const [first, ...more] = volumes.map((volume) => JSON.stringify(volume, null, 2));
  const [define, begin, end] =
    more.length === 0
      ? ['defineVolume', '{', '}']
      : ['defineConfig', '{ volumes: [{', `}, ${more.join(', ')}] }`];
  return [
    `import { ${define} } from 'tidemark';`,
    `export default ${define}(${begin}`,
    source,
    `...${first},`,
    `${end});`,
    '',
  ].join('\n');
}
