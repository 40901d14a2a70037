// Create and attach: the blocking part of a volume's life, before it runs.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/dirty_map.h"
#include "core/host.h"
#include "core/layout.h"
#include "core/superblock.h"

namespace tidemark {

struct Attachment {
  Superblock superblock;
  Layout layout;
  std::array<std::unique_ptr<DirtyMap>, kMaxPeerSlots> maps;  // of the slots in use
  uint64_t log_next_number = 1;
  bool crashed = false;           // it was not stopped cleanly
  uint64_t replayed_extents = 0;  // extents that the log replay made dirty
  uint64_t replayed_chunks = 0;   // chunks that were clean before, in all slots
  std::vector<std::string>
      warnings;  // a bad superblock copy, untrusted map blocks: repaired or counted as dirty
};

struct MetadataError {
  std::string code;     // METADATA_BLANK, METADATA_FOREIGN, METADATA_VERSION, METADATA_DAMAGED,
                        // METADATA_MISMATCH, METADATA_IO
  std::string message;  // what was found, what was expected, the way out
};

struct Expectation {
  uint64_t device_bytes = 0;
  uint32_t block_bytes = 0;
};

// Write fresh metadata: both superblocks, empty rings and maps. Random numbers come in. The maps'
// and rings' blocks are written as zeroes unless `zeroed`.
std::optional<MetadataError> create_metadata(MetadataIo& io, const Superblock& superblock,
                                             const Layout& layout, bool zeroed);

// Read one good superblock from the two places where the copies can be (copy 1's place is
// `area_bytes` - 4 KiB); `best_copy`: which one that was.
std::optional<MetadataError> read_superblock(MetadataIo& io, uint64_t area_bytes, Superblock* out,
                                             std::vector<std::string>* warnings,
                                             uint32_t* best_copy = nullptr);

// Read all, replay every non-empty log ring (R13), make the result durable, mark the node as
// attached.
std::optional<MetadataError> attach_metadata(MetadataIo& io, uint64_t area_bytes,
                                             const Expectation& expected,
                                             std::unique_ptr<Attachment>* out);

// Everything that the metadata holds, for people and programs, also of a damaged one: JSON text.
std::string dump_metadata(MetadataIo& io, uint64_t area_bytes);

}  // namespace tidemark
