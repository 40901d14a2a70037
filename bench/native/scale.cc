// Metadata that come about only in hours of copying, made at once, for bench/scale.ts. External
// metadata files of volumes whose daemons do not run.
//
//   tidemark-scale in-step FILE NODE FILE NODE
//       Two fresh copies become what a full resync leaves: one generation, whole, each with a slot
//       for the other, and every block of its map written, with nothing marked.
//   tidemark-scale mark FILE
//       One chunk is marked in every block of the first slot's map.
//
// Errors go to standard error, with status 1.
#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "core/attach.h"
#include "core/map_block.h"
#include "engine/backing.h"
#include "engine/metadata_file.h"
#include "engine/metadata_place.h"

namespace tidemark {
namespace {

constexpr uint64_t kGeneration = 0x5ca1e00000000002;
constexpr uint64_t kLockTimeoutMs = 10'000;
constexpr uint64_t kBatchBlocks = 256;

int fail(const std::string& what) {
  std::fprintf(stderr, "tidemark-scale: %s\n", what.c_str());
  return 1;
}

struct Area {
  std::unique_ptr<Backing> backing;
  std::unique_ptr<MetadataFile> file;
  Superblock superblock;
  Layout layout;

  // Empty, or what went wrong.
  std::string open(const std::string& path) {
    EngineError error;
    backing = Backing::open(path, kLockTimeoutMs, &error);
    if (backing == nullptr) return error.message;
    MetadataPlace place;
    if (!find_metadata(*backing, Placement::kExternal, 0, &place, &error)) return error.message;
    superblock = place.superblock;
    layout = make_layout(superblock.geometry);
    file = std::make_unique<MetadataFile>(*backing, place.offset, place.bytes);
    return "";
  }
  std::string write() {
    ++superblock.serial;
    for (const uint32_t copy : {0u, 1u}) {
      std::array<uint8_t, kBlockSize> block;
      encode_superblock(superblock, copy, block);
      const uint64_t at = layout.superblock_block(copy) * kBlockSize;
      if (file->write(at, block.data(), block.size()) != 0 || file->flush() != 0) {
        return "cannot write a superblock of " + backing->path();
      }
    }
    return "";
  }
};

void share(Superblock* mine, const Superblock& peer, const char* peer_name) {
  mine->current = kGeneration;
  mine->flags |= kNodeConsistent | kNodeWasUpToDate;
  PeerSlot& slot = mine->slots[0];
  slot = PeerSlot{};
  slot.node_id = peer.node_id;
  slot.flags = kSlotInUse;
  slot.last_generation = kGeneration;
  std::snprintf(slot.name, sizeof slot.name, "%s", peer_name);
}

// Every block of the first slot's map, with the same words.
std::string write_map(const Area& area, uint64_t word) {
  const Superblock& sb = area.superblock;
  std::array<uint64_t, kMapBlockWords> words{};
  words[0] = word;
  std::vector<uint8_t> batch(kBatchBlocks * kBlockSize);
  const uint64_t blocks = area.layout.map_slot_blocks;
  for (uint64_t at = 0; at < blocks; at += kBatchBlocks) {
    const uint64_t count = std::min(kBatchBlocks, blocks - at);
    for (uint64_t i = 0; i < count; ++i) {
      encode_map_block({sb.short_id(), 0, at + i, sb.geometry.chunk_bytes}, words,
                       std::span<uint8_t, kBlockSize>(batch.data() + i * kBlockSize, kBlockSize));
    }
    if (area.file->write(area.layout.map_block(0, at) * kBlockSize, batch.data(),
                         count * kBlockSize) != 0) {
      return "cannot write the map of " + area.backing->path();
    }
  }
  return area.file->flush() == 0 ? "" : "cannot flush " + area.backing->path();
}

int in_step(char** words) {
  Area first, second;
  for (const auto& [area, path] : {std::pair{&first, words[0]}, std::pair{&second, words[2]}}) {
    if (const std::string error = area->open(path); !error.empty()) return fail(error);
    if (area->superblock.current != kGenerationJustCreated) {
      return fail(std::string(path) +
                  " belongs to a copy that was in use: only a fresh one will do");
    }
  }
  share(&first.superblock, second.superblock, words[3]);
  share(&second.superblock, first.superblock, words[1]);
  for (Area* area : {&first, &second}) {
    if (const std::string error = write_map(*area, 0); !error.empty()) return fail(error);
    if (const std::string error = area->write(); !error.empty()) return fail(error);
  }
  return 0;
}

int mark(const char* path) {
  Area area;
  if (const std::string error = area.open(path); !error.empty()) return fail(error);
  if ((area.superblock.slots[0].flags & kSlotInUse) == 0) {
    return fail(std::string(path) + " has no slot in use");
  }
  const std::string error = write_map(area, 1);
  return error.empty() ? 0 : fail(error);
}

}  // namespace
}  // namespace tidemark

int main(int argc, char** argv) {
  const std::string verb = argc > 1 ? argv[1] : "";
  if (verb == "in-step" && argc == 6) return tidemark::in_step(argv + 2);
  if (verb == "mark" && argc == 3) return tidemark::mark(argv[2]);
  return tidemark::fail("expected 'in-step FILE NODE FILE NODE' or 'mark FILE'");
}
