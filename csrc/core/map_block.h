// One 4 KiB block of a dirty map on disk: a 64-byte header that names itself (magic, metadata id,
// slot, block index, first chunk, chunk size, CRC32C) and 504 little-endian words. A block of
// zeroes was never written and is clean; anything else that does not check is untrusted (R15).
#pragma once

#include <cstdint>
#include <span>

#include "core/dirty_map.h"
#include "core/types.h"

namespace tidemark {

struct MapBlockName {
  uint64_t metadata_id = 0;  // first 8 bytes, little-endian, of Superblock::metadata_id
  uint32_t slot = 0;
  uint64_t index = 0;
  uint32_t chunk_bytes = 0;
};

void encode_map_block(const MapBlockName& name, std::span<const uint64_t> words,
                      std::span<uint8_t, kBlockSize> out);

enum class MapBlockStatus : uint8_t { kGood, kNeverWritten, kUntrusted };
// kGood fills `words` (kMapBlockWords entries).
MapBlockStatus parse_map_block(const MapBlockName& expected,
                               std::span<const uint8_t, kBlockSize> block,
                               std::span<uint64_t> words);

}  // namespace tidemark
