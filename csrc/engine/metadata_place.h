// Finding the metadata area of a device by one good superblock copy.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/superblock.h"
#include "engine/backing.h"
#include "engine/error.h"

namespace tidemark {

struct MetadataPlace {
  Superblock superblock;  // as the copy that was found has it; not necessarily the newest
  uint64_t offset = 0;    // bytes, on the device
  uint64_t bytes = 0;
  std::vector<std::string> warnings;
};

// Looks where a copy has to be for this placement; when that one is damaged, for the other copy
// within the area that could hold it. False: `error` has METADATA_BLANK, _FOREIGN, _VERSION,
// _DAMAGED, _MISMATCH (another placement) or _IO, and says what was found.
bool find_metadata(const Backing& device, Placement placement, uint64_t offset_bytes,
                   MetadataPlace* out, EngineError* error);

}  // namespace tidemark
