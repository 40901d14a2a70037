/** `tidemark create`, `dump-md` and `features`: what needs the add-on and no daemon. */

import { loadAddon } from '../binding/addon.ts';
import { TidemarkError } from '../binding/errors.ts';
import type { CreateOptions } from '../binding/native.ts';
import type { VolumeConfig } from '../config/resolved.ts';
import { formatBytes } from '../config/units.ts';
import type { Context } from './context.ts';
import { outline } from './status_text.ts';

type Disks = Pick<CreateOptions, 'backing' | 'metadata' | 'placement' | 'metadataOffset'>;

function disks({ local }: VolumeConfig): Disks {
  const place = local.metadata;
  return {
    backing: local.backing,
    placement: place.placement,
    ...(place.placement === 'external' ? { metadata: place.file } : {}),
    ...(place.placement === 'offset' ? { metadataOffset: place.offsetBytes } : {}),
  };
}

function placeText({ local }: VolumeConfig): string {
  const place = local.metadata;
  if (place.placement === 'external') return `in ${place.file}`;
  if (place.placement === 'offset') return `at byte ${place.offsetBytes} of ${local.backing}`;
  return `at the ${place.placement} of ${local.backing}`;
}

interface CreateJson {
  name: string;
  backing: string;
  size_bytes: number;
  metadata_bytes: number;
  data_offset_bytes: number;
  metadata_offset_bytes: number;
  node_id: string;
  chunk_bytes: number;
  /** What the disks carried, for people: only with --force. Outside of the metadata it stays. */
  carried: string[];
}

export interface CreateFlags {
  force?: boolean;
  json?: boolean;
}

/** Writes the metadata of this node's copy of each chosen volume. */
export async function create(context: Context, flags: CreateFlags): Promise<void> {
  const config = await context.loadConfig();
  const addon = loadAddon();
  const reports: CreateJson[] = [];
  for (const volume of context.chosenVolumes(config)) {
    const report = await addon
      .create({
        ...disks(volume),
        name: volume.name,
        chunkBytes: volume.chunkBytes,
        extentBytes: volume.extentBytes,
        logExtents: volume.activityLogExtents,
        ...(flags.force ? { force: true } : {}),
      })
      .catch((error: TidemarkError) => {
        // Those before it are created: say so, or the next try is refused for a reason that nobody expects.
        const made = reports.map((entry) => entry.name).join(', ');
        const before = made === '' ? '' : ` (already created: ${made})`;
        throw new TidemarkError(
          error.code ?? 'CREATE',
          `${volume.name}: ${error.message}${before}`,
          {
            cause: error,
          },
        );
      });
    reports.push({
      name: volume.name,
      backing: volume.local.backing,
      size_bytes: report.volumeBytes,
      metadata_bytes: report.metadataBytes,
      data_offset_bytes: report.dataOffset,
      metadata_offset_bytes: report.metadataOffset,
      node_id: report.nodeId,
      chunk_bytes: volume.chunkBytes,
      carried: report.overwritten,
    });
    if (flags.json) continue;
    process.stdout.write(
      `${volume.name}: ${formatBytes(report.volumeBytes)} (${report.volumeBytes} bytes) for data; metadata of ${formatBytes(report.metadataBytes)} ${placeText(volume)}\n` +
        `  chunk ${formatBytes(volume.chunkBytes)}, extent ${formatBytes(volume.extentBytes)}, activity log of ${volume.activityLogExtents} extents, node id ${report.nodeId}\n`,
    );
    for (const text of report.overwritten) {
      process.stdout.write(`  ${text}; outside of the metadata it stays, as the volume's data\n`);
    }
  }
  if (flags.json) process.stdout.write(`${JSON.stringify(reports)}\n`);
  else {
    process.stdout.write(
      "next: 'tidemark up' on each node, then 'tidemark primary --force' once, on the node whose data counts\n",
    );
  }
}

/** Prints the metadata of this node's copies, damaged or not. */
export async function dumpMetadata(context: Context, flags: { json?: boolean }): Promise<void> {
  const config = await context.loadConfig();
  const addon = loadAddon();
  const dumps = [];
  for (const volume of context.chosenVolumes(config)) {
    const dump = JSON.parse(await addon.dump(disks(volume))) as unknown;
    dumps.push({ name: volume.name, ...(dump as object) });
  }
  if (flags.json) process.stdout.write(`${JSON.stringify(dumps)}\n`);
  else for (const dump of dumps) process.stdout.write(`${outline(dump)}\n`);
}

/** Prints what this kernel offers, and what is missing for the rest. */
export function features(flags: { json?: boolean }): void {
  const text = loadAddon().features();
  process.stdout.write(flags.json ? `${text.trim()}\n` : outline(JSON.parse(text)));
}
