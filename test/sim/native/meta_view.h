// What a machine's metadata say about a peer, as an attach would read them off the disk: the bits
// of its dirty map and the extents of the activity log, found with the core's own codecs and
// replay. Kept up to date as blocks change; only these are read again.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "bits.h"
#include "core/activity_log.h"
#include "core/map_block.h"
#include "core/superblock.h"
#include "disk.h"
#include "machine.h"

namespace tidemark::sim {

class MetaView final : public Disk::Watcher {
 public:
  enum class Of : uint8_t { kCached, kDurable };

  MetaView(Machine& machine, Of of);
  ~MetaView();
  MetaView(const MetaView&) = delete;
  MetaView& operator=(const MetaView&) = delete;

  // Pages of the volume that would count as dirty for this peer. All of them: no slot is bound to
  // it, all is dirty, or the metadata are refused.
  const Bits& cover(const Uuid& peer);
  // Why, for people.
  std::string explain(const Uuid& peer, uint64_t page);

  void cached_changed(uint64_t page) override { changed(Of::kCached, page); }
  void durable_changed(uint64_t page) override { changed(Of::kDurable, page); }

 private:
  struct MapBlock {
    MapBlockStatus status = MapBlockStatus::kNeverWritten;
    std::vector<uint64_t> words;
  };
  void changed(Of of, uint64_t page);
  void refresh();
  void read_superblocks();
  void read_logs();
  void read_map_block(uint64_t block);
  void add_map(uint32_t slot, Bits* bits) const;
  std::span<const uint8_t, kBlockSize> block(uint64_t number) const;
  bool written(uint64_t number) const;

  Machine& machine_;
  const Of of_;
  const uint64_t base_;  // page of the metadata's first block
  uint64_t version_ = 1;
  bool superblock_changed_ = true;
  bool log_changed_ = true;
  std::vector<uint64_t> map_changed_;  // blocks
  std::vector<bool> map_listed_;

  bool usable_ = false;
  Superblock superblock_;
  std::string log_unusable_;          // why
  std::vector<uint32_t> hot_;         // extents
  std::vector<MapBlock> map_blocks_;  // by block, from the first map's first

  Uuid covered_peer_;
  uint64_t covered_version_ = 0;
  Bits cover_;
};

// Sets the pages of the chunks whose bits are set. `first_chunk` is a multiple of 64.
void add_chunks(Bits* pages, uint64_t first_chunk, uint64_t word, uint32_t chunk_bytes);

}  // namespace tidemark::sim
