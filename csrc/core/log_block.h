// One 4 KiB block of an activity log ring: header (magic, metadata id, node slot, transaction
// number, counts, CRC32C), up to kLogUpdates updates, then kLogContext entries of context.
// docs/METADATA.md has the bytes. A block of zeroes was never written.
#pragma once

#include <cstdint>
#include <span>

#include "core/activity_log.h"
#include "core/types.h"

namespace tidemark {

struct LogBlockName {
  uint64_t metadata_id = 0;
  uint32_t node_slot = 0;
  uint32_t extents = 0;  // slots of the table
};

void encode_log_block(const LogBlockName& name, const LogTransaction& transaction,
                      std::span<uint8_t, kBlockSize> out);

enum class LogBlockStatus : uint8_t { kGood, kNeverWritten, kUntrusted };
LogBlockStatus parse_log_block(const LogBlockName& expected,
                               std::span<const uint8_t, kBlockSize> block, LogTransaction* out);

}  // namespace tidemark
