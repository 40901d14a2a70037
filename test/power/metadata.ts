// Reads what an attach leaves on a disk by docs/METADATA.md alone, so that the product's own reader is not its judge.
import { crc32c, u64 } from './numbers.ts';

const BLOCK_BYTES = 4096;
const MAP_BITS = 32_256;
const CHECKSUM_AT = { superblock: 12, map: 40 } as const;

export const NodeFlag = {
  consistent: 1,
  wasUpToDate: 2,
  outdated: 4,
  primary: 8,
  attached: 16,
  crashedPrimary: 32,
} as const;
export const SlotFlag = { inUse: 1, allDirty: 2 } as const;

export interface Slot {
  flags: number;
  /** B: the generation last shared with the peer, 0 while it shares the current one. */
  shared: bigint;
  /** One byte a chunk: 1 when the peer's copy may differ. */
  map: Uint8Array;
}

export interface Metadata {
  serial: number;
  flags: number;
  current: bigint;
  areaOffset: number;
  areaBytes: number;
  dataOffset: number;
  volumeBytes: number;
  chunkBytes: number;
  /** Slots in use. */
  slots: Slot[];
}

/** Where the metadata of a disk lie; they do not move. */
export interface Place {
  areaOffset: number;
  areaBytes: number;
  /** Of the area: where the activity log rings end, and the maps begin, which end before the last block. */
  mapsOffset: number;
}

function checksumHolds(block: Buffer, at: number): boolean {
  const copy = Buffer.from(block);
  copy.fill(0, at, at + 4);
  return crc32c(copy) === block.readUInt32LE(at);
}

function isSuperblock(block: Buffer): boolean {
  return (
    block.toString('latin1', 0, 8) === 'TIDEMRK1' &&
    block.readUInt32LE(8) === 1 &&
    checksumHolds(block, CHECKSUM_AT.superblock)
  );
}

interface Geometry {
  ringBlocks: number;
  mapBlocks: number;
  nodeSlots: number;
  peerSlots: number;
  blocks: number;
}

function geometryOf(superblock: Buffer): Geometry {
  const chunks = Math.ceil(u64(superblock, 96) / superblock.readUInt32LE(104));
  const logExtents = superblock.readUInt32LE(112);
  const peerSlots = superblock.readUInt32LE(116);
  const nodeSlots = superblock.readUInt32LE(120);
  const ringBlocks = Math.max(8, 2 * Math.ceil(logExtents / 880) + 2);
  const mapBlocks = Math.ceil(chunks / MAP_BITS);
  const blocks = 2 + nodeSlots * ringBlocks + peerSlots * mapBlocks;
  return { ringBlocks, mapBlocks, nodeSlots, peerSlots, blocks };
}

/** Finds the area on a whole disk: at its end, at its start, or where a superblock there says that it is. */
export function findMetadata(disk: Buffer): Place {
  for (const at of [0, disk.length - (disk.length % BLOCK_BYTES) - BLOCK_BYTES]) {
    const block = disk.subarray(at, at + BLOCK_BYTES);
    if (!isSuperblock(block)) continue;
    const { blocks, nodeSlots, ringBlocks } = geometryOf(block);
    return {
      areaOffset: u64(block, 88),
      areaBytes: blocks * BLOCK_BYTES,
      mapsOffset: (1 + nodeSlots * ringBlocks) * BLOCK_BYTES,
    };
  }
  throw new Error('no superblock at the start or the end of the disk');
}

/** The newer of the two copies; undefined when neither is whole. */
function newestSuperblock(area: Buffer): Buffer | undefined {
  return [area.subarray(0, BLOCK_BYTES), area.subarray(area.length - BLOCK_BYTES)]
    .filter(isSuperblock)
    .sort((one, other) => u64(other, 16) - u64(one, 16))[0];
}

function readMap(area: Buffer, superblock: Buffer, slot: number): Uint8Array {
  const { ringBlocks, nodeSlots, mapBlocks } = geometryOf(superblock);
  const chunkBytes = superblock.readUInt32LE(104);
  const chunks = Math.ceil(u64(superblock, 96) / chunkBytes);
  const map = new Uint8Array(chunks);
  if ((superblock.readUInt32LE(512 + slot * 128 + 16) & SlotFlag.allDirty) !== 0)
    return map.fill(1);
  const first = 1 + nodeSlots * ringBlocks + slot * mapBlocks;
  for (let index = 0; index < mapBlocks; index += 1) {
    const at = (first + index) * BLOCK_BYTES;
    const block = area.subarray(at, at + BLOCK_BYTES);
    const begin = index * MAP_BITS;
    const end = Math.min(begin + MAP_BITS, chunks);
    if (block.every((byte) => byte === 0)) continue;
    const good =
      block.toString('latin1', 0, 8) === 'TIDEMAP1' &&
      block.compare(superblock, 32, 40, 8, 16) === 0 &&
      block.readUInt32LE(16) === slot &&
      block.readUInt32LE(20) === chunkBytes &&
      u64(block, 24) === index &&
      checksumHolds(block, CHECKSUM_AT.map);
    for (let chunk = begin; chunk < end; chunk += 1) {
      const bit = chunk - begin;
      if (!good || ((block[64 + (bit >> 3)]! >> (bit & 7)) & 1) !== 0) map[chunk] = 1;
    }
  }
  return map;
}

/** Reads the metadata area of a disk. */
export function readMetadata(area: Buffer): Metadata {
  const superblock = newestSuperblock(area);
  if (superblock === undefined) throw new Error('neither copy of the superblock is whole');
  const slots: Slot[] = [];
  for (let slot = 0; slot < geometryOf(superblock).peerSlots; slot += 1) {
    const at = 512 + slot * 128;
    const flags = superblock.readUInt32LE(at + 16);
    if ((flags & SlotFlag.inUse) === 0) continue;
    slots.push({
      flags,
      shared: superblock.readBigUInt64LE(at + 24),
      map: readMap(area, superblock, slot),
    });
  }
  return {
    serial: u64(superblock, 16),
    flags: superblock.readUInt32LE(28),
    current: superblock.readBigUInt64LE(144),
    areaOffset: u64(superblock, 88),
    areaBytes: area.length,
    dataOffset: u64(superblock, 80),
    volumeBytes: u64(superblock, 96),
    chunkBytes: superblock.readUInt32LE(104),
    slots,
  };
}
