#include "engine/metadata_place.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>

#include "engine/metadata_file.h"

namespace tidemark {
namespace {

using Block = std::span<const uint8_t, kBlockSize>;

constexpr uint64_t kScanBytes = 1u << 20;
// The area takes about a 4,096th of the device at the default chunk size (8 bits for each 4 KiB); a
// damaged copy's twin is looked for in four times that and 64 MiB, which also covers the largest
// log.
uint64_t scan_range(uint64_t device_bytes) {
  return std::min(device_bytes, device_bytes / 1024 + (64u << 20));
}

EngineError io_error(const Backing& device, int number) {
  return {"METADATA_IO", -number, "pread",
          "cannot read the metadata of '" + device.path() + "': " + std::strerror(-number)};
}

// What the superblock at `position` says about where its area starts.
bool place_of(const SuperblockParse& parse, uint64_t position, MetadataPlace* out) {
  if (parse.error != SuperblockError::kNone) return false;
  const Layout layout = make_layout(parse.superblock.geometry);
  const uint64_t distance = layout.superblock_block(parse.copy) * kBlockSize;
  if (position < distance) return false;
  out->superblock = parse.superblock;
  out->offset = position - distance;
  out->bytes = layout.bytes();
  return true;
}

// Copies of older metadata may lie around; the twin is one whose own idea of its place is right.
bool scan_for_twin(MetadataFile& file, uint64_t first, uint64_t end, Placement placement,
                   MetadataPlace* out) {
  const std::unique_ptr<uint8_t[]> buffer(new uint8_t[kScanBytes]);
  for (uint64_t at = first; at < end; at += kScanBytes) {
    const uint64_t bytes = std::min(kScanBytes, end - at) / kBlockSize * kBlockSize;
    if (bytes == 0 || file.read(at, buffer.get(), bytes) != 0) continue;
    for (uint64_t block = 0; block < bytes; block += kBlockSize) {
      const SuperblockParse parse = parse_superblock(Block(buffer.get() + block, kBlockSize));
      MetadataPlace found;
      if (!place_of(parse, at + block, &found)) continue;
      if (found.superblock.placement != placement) continue;
      if (found.superblock.meta_offset != found.offset) continue;
      *out = found;
      return true;
    }
  }
  return false;
}

std::string way_out(SuperblockError error) {
  switch (error) {
    case SuperblockError::kBlank:
    case SuperblockError::kForeign:
      return "; if this is the right disk and placement, 'tidemark create' makes new metadata";
    case SuperblockError::kVersionNewer:
    case SuperblockError::kVersionOlder:
      return "; use the version of Tidemark that wrote it";
    default:
      return "; 'tidemark dump-md' shows what is left, 'tidemark create --force' starts anew";
  }
}

}  // namespace

bool find_metadata(const Backing& device, Placement placement, uint64_t offset_bytes,
                   MetadataPlace* out, EngineError* error) {
  const uint64_t whole = device.device_bytes() / kBlockSize * kBlockSize;
  const bool at_end = placement == Placement::kEnd;
  const uint64_t first = placement == Placement::kOffset ? offset_bytes : 0;
  if (first % kBlockSize != 0 || whole < kBlockSize || first > whole - kBlockSize) {
    *error = {"METADATA_MISMATCH", 0, "",
              "'" + device.path() + "' has " + std::to_string(device.device_bytes()) +
                  " bytes: no metadata can begin at byte " + std::to_string(first) +
                  " (a multiple of 4096 inside of the device is expected)"};
    return false;
  }
  const uint64_t position = at_end ? whole - kBlockSize : first;
  MetadataFile file(device, 0, whole);
  uint8_t block[kBlockSize];
  if (const int number = file.read(position, block, sizeof block); number != 0) {
    *error = io_error(device, number);
    return false;
  }
  const SuperblockParse parse = parse_superblock(Block(block));
  const std::string where = "the superblock at byte " + std::to_string(position) + " of '" +
                            device.path() + "' (placement " + placement_text(placement) + ")";
  if (place_of(parse, position, out)) {
    if (out->superblock.placement == placement) return true;
    *error = {"METADATA_MISMATCH", 0, "",
              where + " belongs to metadata with placement " +
                  placement_text(out->superblock.placement) + "; the configuration has to say so"};
    return false;
  }
  // Metadata of another version is refused by name and not searched for older remains (R15).
  const bool other_version = parse.error == SuperblockError::kVersionNewer ||
                             parse.error == SuperblockError::kVersionOlder;
  if (!other_version) {
    const uint64_t range = scan_range(whole);
    const uint64_t from = at_end ? whole - range : first;
    const uint64_t to = at_end ? whole : std::min(whole, first + range);
    if (scan_for_twin(file, from, to, placement, out)) {
      out->warnings.push_back(where + ": " + parse.message + "; its other copy is used");
      return true;
    }
  }
  *error = {error_code(parse.error), 0, "", where + ": " + parse.message + way_out(parse.error)};
  return false;
}

}  // namespace tidemark
