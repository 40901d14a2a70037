// Making a volume's metadata, and showing it: the blocking commands that need no running engine.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/layout.h"
#include "core/types.h"
#include "engine/error.h"

namespace tidemark {

struct CreateOptions {
  std::string name;          // 1..63 bytes
  std::string backing_path;  // an existing block device or file
  Placement placement = Placement::kEnd;
  uint64_t metadata_offset = 0;  // kOffset only, multiple of 4 KiB
  std::string metadata_path;     // kExternal only; a file is made when there is none
  uint64_t size_bytes = 0;       // of the volume; 0: as large as fits
  uint32_t chunk_bytes = kChunkBytesDefault;
  uint32_t extent_bytes = kExtentBytesDefault;
  uint32_t log_extents = kExtentsDefault;
  uint32_t peer_slots = kMaxPeerSlots;
  bool force = false;  // overwrite what a disk carries
};

struct CreateReport {
  uint64_t volume_bytes = 0;
  uint64_t device_bytes = 0;
  uint32_t block_bytes = 0;
  uint64_t data_offset = 0;
  uint64_t metadata_offset = 0;
  uint64_t metadata_bytes = 0;
  Uuid node_id;
  std::vector<std::string> overwritten;  // "'/dev/sdb': ext4 filesystem", only with force
  std::vector<std::string> warnings;
};

// Nothing is written before everything was checked. Error codes: those of Backing, OPTIONS, EXISTS
// (the disk carries something; the message says what), METADATA_IO.
std::optional<EngineError> create_volume(const CreateOptions& options, CreateReport* report);

struct DumpOptions {
  std::string backing_path;
  Placement placement = Placement::kEnd;
  uint64_t metadata_offset = 0;
  std::string metadata_path;
};

// JSON text of all that the metadata holds, also of a damaged one and of one in use (`locked`):
// reads only. An error is for a device that cannot be read, or that has no trace of metadata.
std::optional<EngineError> dump_volume(const DumpOptions& options, std::string* json);

}  // namespace tidemark
