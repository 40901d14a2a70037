#include "core/layout.h"

#include <algorithm>
#include <bit>
#include <cassert>

#include "core/activity_log.h"
#include "core/dirty_map.h"

namespace tidemark {
namespace {

constexpr uint64_t kLogRingBlocksMin = 8;

uint64_t divide_up(uint64_t value, uint64_t unit) {
  return value / unit + (value % unit != 0 ? 1 : 0);
}

std::string out_of_range(const char* what, uint64_t value, uint64_t least, uint64_t most) {
  return std::string(what) + " is " + std::to_string(value) + ": out of range (" +
         std::to_string(least) + ".." + std::to_string(most) + ")";
}

std::optional<std::string> check_power(const char* what, uint64_t value, uint64_t least,
                                       uint64_t most) {
  if (value >= least && value <= most && std::has_single_bit(value)) return std::nullopt;
  return out_of_range(what, value, least, most) + " or not a power of 2";
}

std::optional<std::string> check_range(const char* what, uint64_t value, uint64_t least,
                                       uint64_t most) {
  if (value >= least && value <= most) return std::nullopt;
  return out_of_range(what, value, least, most);
}

// All of the geometry but the volume's size, which split_device() is about to find.
std::optional<std::string> check_units(const Geometry& geometry) {
  if (auto error =
          check_power("chunk_bytes", geometry.chunk_bytes, kChunkBytesMin, kChunkBytesMax)) {
    return error;
  }
  if (auto error =
          check_power("extent_bytes", geometry.extent_bytes, kExtentBytesMin, kExtentBytesMax)) {
    return error;
  }
  if (geometry.extent_bytes < geometry.chunk_bytes) {
    return "extent_bytes is " + std::to_string(geometry.extent_bytes) +
           ": an extent must be at least one chunk (chunk_bytes is " +
           std::to_string(geometry.chunk_bytes) + ")";
  }
  if (auto error = check_range("log_extents", geometry.log_extents, kExtentsMin, kExtentsMax)) {
    return error;
  }
  if (auto error = check_range("peer_slots", geometry.peer_slots, 1, kMaxPeerSlots)) return error;
  return check_range("node_slots", geometry.node_slots, 1, kNodeSlotsMax);
}

// Places the areas for a geometry whose volume may still be of any size.
Layout place_areas(const Geometry& geometry) {
  Layout layout;
  layout.geometry = geometry;
  const uint64_t windows = divide_up(geometry.log_extents, kLogContext);
  const uint64_t chunks = divide_up(geometry.volume_bytes, geometry.chunk_bytes);
  layout.log_first_block = 1;
  layout.log_ring_blocks = std::max(kLogRingBlocksMin, 2 * windows + 2);
  layout.map_first_block = layout.log_first_block + geometry.node_slots * layout.log_ring_blocks;
  layout.map_slot_blocks = divide_up(chunks, kMapBlockChunks);
  layout.total_blocks = layout.map_first_block + geometry.peer_slots * layout.map_slot_blocks + 1;
  return layout;
}

// The largest volume, in steps of `step` bytes, that fits into `room` bytes together with its
// metadata. Size and metadata grow together, so that the sizes that fit are one run from zero.
uint64_t largest_fit(uint64_t room, uint64_t step, Geometry geometry) {
  uint64_t fits = 0;
  uint64_t too_large = room / step + 1;
  while (too_large - fits > 1) {
    const uint64_t middle = fits + (too_large - fits) / 2;
    geometry.volume_bytes = middle * step;
    const uint64_t meta_bytes = place_areas(geometry).bytes();
    if (meta_bytes <= room && geometry.volume_bytes <= room - meta_bytes) {
      fits = middle;
    } else {
      too_large = middle;
    }
  }
  return fits * step;
}

std::optional<std::string> nothing_fits(uint64_t device_bytes, const Geometry& geometry) {
  Geometry smallest = geometry;
  smallest.volume_bytes = kVolumeBytesMin;
  const uint64_t need = kVolumeBytesMin + place_areas(smallest).bytes();
  return "the backing device has " + std::to_string(device_bytes) +
         " bytes: too small for the smallest volume (" + std::to_string(kVolumeBytesMin) +
         " bytes) and its metadata, together " + std::to_string(need) + " bytes";
}

}  // namespace

const char* placement_text(Placement placement) {
  switch (placement) {
    case Placement::kEnd:
      return "end";
    case Placement::kStart:
      return "start";
    case Placement::kOffset:
      return "offset";
    case Placement::kExternal:
      return "external";
  }
  return "unknown";
}

uint64_t Layout::log_block(uint32_t node_slot, uint64_t transaction) const {
  assert(node_slot < geometry.node_slots);
  return log_first_block + node_slot * log_ring_blocks + transaction % log_ring_blocks;
}

uint64_t Layout::map_block(uint32_t peer_slot, uint64_t index) const {
  assert(peer_slot < geometry.peer_slots && index < map_slot_blocks);
  return map_first_block + peer_slot * map_slot_blocks + index;
}

uint64_t Layout::extent_count() const {
  return divide_up(geometry.volume_bytes, geometry.extent_bytes);
}

std::optional<std::string> check_geometry(const Geometry& geometry) {
  if (auto error = check_range("the volume's size in bytes", geometry.volume_bytes, kVolumeBytesMin,
                               kVolumeBytesMax)) {
    return error;
  }
  if (geometry.volume_bytes % kSectorSize != 0) {
    return "the volume's size in bytes is " + std::to_string(geometry.volume_bytes) +
           ": not a multiple of " + std::to_string(kSectorSize);
  }
  return check_units(geometry);
}

Layout make_layout(const Geometry& geometry) {
  assert(!check_geometry(geometry));
  return place_areas(geometry);
}

std::optional<std::string> split_device(uint64_t device_bytes, uint32_t block_bytes,
                                        Placement placement, uint64_t offset_bytes,
                                        Geometry geometry, Split* out) {
  if (block_bytes != kSectorSize && block_bytes != kBlockSize) {
    return "the backing's logical block has " + std::to_string(block_bytes) +
           " bytes: only 512 and 4096 are known";
  }
  if (auto error = check_units(geometry)) return error;
  // Beyond this, neither the volume nor the sums below would fit; it is far above what can be used.
  if (device_bytes > 2 * kVolumeBytesMax) {
    return out_of_range("the backing device's size in bytes", device_bytes, kVolumeBytesMin,
                        2 * kVolumeBytesMax);
  }
  if (placement != Placement::kOffset && offset_bytes != 0) {
    return "a metadata offset (" + std::to_string(offset_bytes) +
           ") goes with the placement 'offset' only";
  }

  Split split;
  switch (placement) {
    case Placement::kEnd: {
      const uint64_t end = device_bytes / kBlockSize * kBlockSize;
      geometry.volume_bytes = largest_fit(end, kBlockSize, geometry);
      if (geometry.volume_bytes < kVolumeBytesMin) return nothing_fits(device_bytes, geometry);
      split.meta_offset = end - place_areas(geometry).bytes();
      break;
    }
    case Placement::kStart:
      geometry.volume_bytes = largest_fit(device_bytes, block_bytes, geometry);
      if (geometry.volume_bytes < kVolumeBytesMin) return nothing_fits(device_bytes, geometry);
      split.data_offset = place_areas(geometry).bytes();
      break;
    case Placement::kOffset: {
      if (offset_bytes % kBlockSize != 0) {
        return "the metadata offset is " + std::to_string(offset_bytes) + ": not a multiple of " +
               std::to_string(kBlockSize);
      }
      if (offset_bytes > device_bytes) {
        return out_of_range("the metadata offset", offset_bytes, kVolumeBytesMin, device_bytes);
      }
      geometry.volume_bytes = offset_bytes;
      split.meta_offset = offset_bytes;
      break;
    }
    case Placement::kExternal:
      geometry.volume_bytes = device_bytes / block_bytes * block_bytes;
      break;
  }
  if (auto error = check_geometry(geometry)) return error;
  split.layout = make_layout(geometry);
  if (placement == Placement::kOffset && split.layout.bytes() > device_bytes - offset_bytes) {
    return "the metadata for a volume of " + std::to_string(geometry.volume_bytes) + " bytes has " +
           std::to_string(split.layout.bytes()) + " bytes: only " +
           std::to_string(device_bytes - offset_bytes) + " are left on the device behind offset " +
           std::to_string(offset_bytes);
  }
  *out = split;
  return std::nullopt;
}

}  // namespace tidemark
