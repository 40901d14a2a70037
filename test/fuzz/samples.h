// Right metadata to start from.
#pragma once

#include <cstdint>
#include <span>

#include "core/block_image.h"
#include "core/check.h"
#include "core/superblock.h"

namespace tidemark::fuzz {

// Small, but with more than one block of everything that there can be more of.
inline Geometry sample_geometry() {
  Geometry geometry;
  geometry.extent_bytes = kExtentBytesMin;
  geometry.log_extents = kExtentsMin;
  geometry.peer_slots = 2;
  geometry.node_slots = 2;
  return geometry;
}

inline Superblock sample_superblock(Placement placement,
                                    uint64_t device_bytes = (8u << 20) + 5 * kSectorSize) {
  Split split;
  const uint64_t offset =
      placement == Placement::kOffset ? (device_bytes - (1u << 20)) / kBlockSize * kBlockSize : 0;
  const auto error =
      split_device(device_bytes, kSectorSize, placement, offset, sample_geometry(), &split);
  check(!error, error ? error->c_str() : "");
  Superblock sb;
  for (uint8_t i = 0; i < 16; ++i) {
    sb.metadata_id.bytes[i] = static_cast<uint8_t>(0x40 + i);
    sb.node_id.bytes[i] = static_cast<uint8_t>(0x80 + i);
    sb.slots[0].node_id.bytes[i] = static_cast<uint8_t>(0xc0 + i);
  }
  sb.serial = 3;
  sb.flags = kNodeConsistent | kNodeWasUpToDate;
  sb.placement = placement;
  sb.device_bytes = device_bytes;
  sb.data_offset = split.data_offset;
  sb.meta_offset = split.meta_offset;
  sb.geometry = split.layout.geometry;
  sb.current = 0x1111;
  sb.push_history(0x2222);
  sb.slots[0].flags = kSlotInUse;
  sb.slots[0].bitmap_generation = 0x2222;
  sb.slots[0].last_generation = 0x2222;
  sb.slots[0].name[0] = 'b';
  sb.name[0] = 'r';
  return sb;
}

// Makes a block's CRC32C, whose field is at `crc_at`, right.
inline void seal_block(std::span<uint8_t> block, size_t crc_at) {
  const uint32_t crc = crc32c_without_field(block, crc_at);
  std::memcpy(block.data() + crc_at, &crc, sizeof crc);
}

}  // namespace tidemark::fuzz
