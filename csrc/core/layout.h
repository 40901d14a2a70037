// Where the metadata lies. All areas are whole 4 KiB blocks; block numbers count from the start of
// the metadata area.
//
//   block 0                      superblock, copy 0
//   1 ...                        activity log rings, one per node slot
//   ...                          dirty maps, one per peer slot
//   last block                   superblock, copy 1 (far from copy 0)
//
// Internal metadata at the end of the backing disk ends at the last whole block of the disk, so
// that copy 1 is found without knowing anything; at the start, and at an offset, copy 0 is.
// docs/METADATA.md has the same in bytes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "core/types.h"

namespace tidemark {

inline constexpr uint32_t kNodeSlotsDefault = 4;
inline constexpr uint32_t kNodeSlotsMax = 64;

// Smallest and largest volume; any whole number of sectors between them will do.
inline constexpr uint64_t kVolumeBytesMin = uint64_t{1} << 20;
inline constexpr uint64_t kVolumeBytesMax = uint64_t{1} << 50;
inline constexpr uint32_t kExtentBytesMin = 1u << 20;
inline constexpr uint32_t kExtentBytesMax = 1u << 30;
// An extent's number fits 32 bits, and the highest of them means "none" (activity_log.h): the size
// limits see to it.
static_assert(kVolumeBytesMax / kExtentBytesMin < UINT32_MAX);

enum class Placement : uint8_t { kEnd = 0, kStart = 1, kOffset = 2, kExternal = 3 };
const char* placement_text(Placement placement);  // "end", "start", "offset", "external"

struct Geometry {
  uint64_t volume_bytes = 0;  // what users see
  uint32_t chunk_bytes = kChunkBytesDefault;
  uint32_t extent_bytes = kExtentBytesDefault;  // power of two, 1 MiB..1 GiB and >= chunk_bytes
  uint32_t log_extents = kExtentsDefault;
  uint32_t peer_slots = kMaxPeerSlots;
  uint32_t node_slots = kNodeSlotsDefault;
};

struct Layout {
  Geometry geometry;
  uint64_t total_blocks = 0;
  uint64_t log_first_block = 0;  // of node slot 0
  uint64_t log_ring_blocks = 0;  // per node slot: carries the slot table twice over, at least 8
  uint64_t map_first_block = 0;  // of peer slot 0
  uint64_t map_slot_blocks = 0;  // per peer slot
  uint64_t superblock_block(uint32_t copy) const { return copy == 0 ? 0 : total_blocks - 1; }
  uint64_t log_block(uint32_t node_slot, uint64_t transaction) const;
  uint64_t map_block(uint32_t peer_slot, uint64_t index) const;
  uint64_t extent_count() const;
  uint64_t bytes() const { return total_blocks * kBlockSize; }
};

// Error text (names the value and the allowed range) or nothing.
std::optional<std::string> check_geometry(const Geometry& geometry);
// The geometry has to have passed check_geometry().
Layout make_layout(const Geometry& geometry);

// How a backing device of `device_bytes` splits into data and metadata. `block_bytes`: the
// backing's logical block (512 or 4096); the volume's size is a multiple of it. kOffset: metadata
// starts at `offset_bytes` (4 KiB aligned), data is what lies before it. kExternal: the whole
// device is data.
struct Split {
  uint64_t data_offset = 0;  // byte on the backing device where volume byte 0 lies
  uint64_t meta_offset = 0;  // byte where the metadata area starts (on the metadata device)
  Layout layout;
};
// Fills geometry.volume_bytes (the largest that fits). Error text when nothing fits.
std::optional<std::string> split_device(uint64_t device_bytes, uint32_t block_bytes,
                                        Placement placement, uint64_t offset_bytes,
                                        Geometry geometry, Split* out);

}  // namespace tidemark
