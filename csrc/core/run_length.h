// Run-length code of a dirty map for the handshake: alternating runs of clean and dirty chunks
// (starting with clean), each as unsigned LEB128. A piece stands alone: it says at which chunk it
// starts and covers a known number of chunks.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "core/dirty_map.h"

namespace tidemark {

// Encode from chunk `from` until the end of the map or until `max_bytes` (>= 32) are used. Returns
// the first chunk not covered (chunk_count when all is). Trailing clean chunks are included in the
// cover.
uint64_t encode_runs(const DirtyMap& map, uint64_t from, size_t max_bytes,
                     std::vector<uint8_t>* out);

// Mark what the piece says is dirty, beginning at chunk `from`. Returns the first chunk not
// covered, or nothing when the code cannot be right (overlong number, run past the end, truncated);
// then nothing was marked.
std::optional<uint64_t> apply_runs(std::span<const uint8_t> code, uint64_t from, DirtyMap* map);

}  // namespace tidemark
