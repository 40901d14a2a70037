// What the metadata holds, as JSON for people and programs. Damage is told and passed over: each
// part is shown as far as it can be read, and nothing is written.
#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "core/activity_log.h"
#include "core/attach.h"
#include "core/dirty_map.h"
#include "core/hex.h"
#include "core/json.h"
#include "core/log_block.h"
#include "core/map_block.h"

namespace tidemark {
namespace {

constexpr uint64_t kBatchBlocks = 256;  // 1 MiB at a time

struct FreeBuffer {
  void operator()(uint8_t* buffer) const { std::free(buffer); }
};

class Blocks {
 public:
  explicit Blocks(uint64_t count)
      : bytes_(static_cast<uint8_t*>(std::aligned_alloc(kBlockSize, count * kBlockSize))) {
    if (bytes_ == nullptr) throw std::bad_alloc();
  }
  // 0 or -errno.
  int read(MetadataIo& io, uint64_t first, uint64_t count) {
    return io.read(first * kBlockSize, bytes_.get(), count * kBlockSize);
  }
  std::span<const uint8_t, kBlockSize> at(uint64_t index) const {
    return std::span<const uint8_t, kBlockSize>(bytes_.get() + index * kBlockSize, kBlockSize);
  }

 private:
  std::unique_ptr<uint8_t, FreeBuffer> bytes_;
};

template <size_t kBytes>
std::string padded_text(const char (&text)[kBytes]) {
  return std::string(text, strnlen(text, kBytes));
}

struct FlagWord {
  uint32_t flag;
  const char* word;
};
constexpr FlagWord kNodeFlagWords[] = {
    {kNodeConsistent, "consistent"}, {kNodeWasUpToDate, "was_up_to_date"},
    {kNodeOutdated, "outdated"},     {kNodePrimary, "primary"},
    {kNodeAttached, "attached"},     {kNodeCrashedPrimary, "crashed_primary"}};
constexpr FlagWord kSlotFlagWords[] = {{kSlotInUse, "in_use"},
                                       {kSlotAllDirty, "all_dirty"},
                                       {kSlotPeerOutdated, "peer_outdated"},
                                       {kSlotFullSync, "full_sync"},
                                       {kSlotPeerPrimary, "peer_primary"},
                                       {kSlotSyncEnding, "sync_ending"},
                                       {kSlotServed, "served"}};

template <size_t kCount>
std::string flag_words(uint32_t flags, const FlagWord (&words)[kCount]) {
  Json list;
  for (const FlagWord& known : words) {
    if ((flags & known.flag) != 0) list.item(Json::quoted(known.word));
    flags &= ~known.flag;
  }
  for (uint32_t bit = 0; bit < 32; ++bit) {
    if ((flags >> bit & 1) != 0) list.item(Json::quoted("bit_" + std::to_string(bit)));
  }
  return list.array();
}

const char* status_word(SuperblockError error) {
  switch (error) {
    case SuperblockError::kNone:
      return "good";
    case SuperblockError::kBlank:
      return "blank";
    case SuperblockError::kForeign:
      return "foreign";
    case SuperblockError::kVersionNewer:
      return "version_newer";
    case SuperblockError::kVersionOlder:
      return "version_older";
    case SuperblockError::kChecksum:
      return "checksum_wrong";
    case SuperblockError::kGeometry:
      return "fields_wrong";
  }
  return "unknown";
}

std::string dump_slots(const Superblock& sb) {
  Json slots;
  for (uint32_t index = 0; index < kMaxPeerSlots; ++index) {
    const PeerSlot& slot = sb.slots[index];
    if (slot.flags == 0 && slot.node_id.is_zero()) continue;
    Json json;
    json.number("slot", index);
    json.text("node_id", hex(slot.node_id));
    json.text("name", padded_text(slot.name));
    json.raw("flags", flag_words(slot.flags, kSlotFlagWords));
    json.text("bitmap_generation", hex(slot.bitmap_generation));
    json.text("last_generation", hex(slot.last_generation));
    slots.item(json.object());
  }
  return slots.array();
}

void dump_fields(const Superblock& sb, Json* json) {
  json->number("serial", sb.serial);
  json->text("name", padded_text(sb.name));
  json->number("created_unix_s", sb.created_unix_s);
  json->text("metadata_id", hex(sb.metadata_id));
  json->text("node_id", hex(sb.node_id));
  json->raw("flags", flag_words(sb.flags, kNodeFlagWords));
  json->text("placement", placement_text(sb.placement));
  json->number("device_bytes", sb.device_bytes);
  json->number("block_bytes", sb.block_bytes);
  json->number("data_offset", sb.data_offset);
  json->number("metadata_offset", sb.meta_offset);
  json->number("volume_bytes", sb.geometry.volume_bytes);
  json->number("chunk_bytes", sb.geometry.chunk_bytes);
  json->number("extent_bytes", sb.geometry.extent_bytes);
  json->number("log_extents", sb.geometry.log_extents);
  json->number("peer_slots", sb.geometry.peer_slots);
  json->number("node_slots", sb.geometry.node_slots);
  json->number("node_slot", sb.node_slot);
  json->number("log_start_number", sb.log_start_number);
  json->text("current_generation", hex(sb.current));
  Json history;
  for (const uint64_t generation : sb.history) history.item(Json::quoted(hex(generation)));
  json->raw("history", history.array());
  json->raw("slots", dump_slots(sb));
}

// Counts of blocks by what became of them.
struct BlockCounts {
  uint64_t good = 0;
  uint64_t never_written = 0;
  uint64_t untrusted = 0;
  uint64_t unreadable = 0;
  std::string object() const {
    Json json;
    json.number("good", good);
    json.number("never_written", never_written);
    json.number("untrusted", untrusted);
    json.number("unreadable", unreadable);
    return json.object();
  }
};

std::string dump_log(MetadataIo& io, const Superblock& sb, const Layout& layout,
                     uint32_t node_slot) {
  const uint64_t count = layout.log_ring_blocks;
  const uint64_t first = layout.log_first_block + node_slot * count;
  const uint64_t start = node_slot == sb.node_slot ? sb.log_start_number : 1;
  const LogBlockName name{sb.short_id(), node_slot, layout.geometry.log_extents};
  Blocks block(1);
  BlockCounts counts;
  std::vector<LogTransaction> transactions(count);
  std::vector<const LogTransaction*> good(count, nullptr);
  const auto blank = std::make_unique<bool[]>(count);
  uint64_t last_number = 0;
  for (uint64_t index = 0; index < count; ++index) {
    if (block.read(io, first + index, 1) != 0) {
      ++counts.unreadable;
      continue;
    }
    switch (parse_log_block(name, block.at(0), &transactions[index])) {
      case LogBlockStatus::kGood:
        ++counts.good;
        last_number = std::max(last_number, transactions[index].number);
        blank[index] = transactions[index].number < start;
        if (!blank[index]) good[index] = &transactions[index];
        break;
      case LogBlockStatus::kNeverWritten:
        ++counts.never_written;
        blank[index] = true;
        break;
      case LogBlockStatus::kUntrusted:
        ++counts.untrusted;
        break;
    }
  }
  const LogReplay replay = replay_log(good, std::span<const bool>(blank.get(), count),
                                      layout.geometry.log_extents, start);
  Json json;
  json.number("node_slot", node_slot);
  json.text("status", replay.status == LogReplay::Status::kEmpty ? "empty"
                      : replay.status == LogReplay::Status::kOk  ? "hot"
                                                                 : "unusable");
  if (replay.why != nullptr) json.text("why", replay.why);
  json.raw("blocks", counts.object());
  json.number("start_number", start);
  json.number("last_number", last_number);
  json.number("torn_blocks", replay.torn_blocks);
  Json extents;
  for (const uint32_t extent : replay.extents) extents.item(std::to_string(extent));
  json.raw("extents", extents.array());
  return json.object();
}

std::string dump_map(MetadataIo& io, const Superblock& sb, const Layout& layout, uint32_t slot) {
  DirtyMap map(layout.geometry.volume_bytes, layout.geometry.chunk_bytes);
  Blocks blocks(std::min(kBatchBlocks, layout.map_slot_blocks));
  BlockCounts counts;
  std::array<uint64_t, kMapBlockWords> words;
  for (uint64_t at = 0; at < map.block_count(); at += kBatchBlocks) {
    const uint64_t count = std::min(kBatchBlocks, map.block_count() - at);
    if (blocks.read(io, layout.map_block(slot, at), count) != 0) {
      counts.unreadable += count;
      for (uint64_t index = 0; index < count; ++index) map.load_untrusted(at + index);
      continue;
    }
    for (uint64_t index = 0; index < count; ++index) {
      const MapBlockName name{sb.short_id(), slot, at + index, layout.geometry.chunk_bytes};
      switch (parse_map_block(name, blocks.at(index), words)) {
        case MapBlockStatus::kGood:
          ++counts.good;
          map.load_block(at + index, words);
          break;
        case MapBlockStatus::kNeverWritten:
          ++counts.never_written;
          break;
        case MapBlockStatus::kUntrusted:
          ++counts.untrusted;
          map.load_untrusted(at + index);
          break;
      }
    }
  }
  Json json;
  json.number("slot", slot);
  json.flag("all_dirty", (sb.slots[slot].flags & kSlotAllDirty) != 0);
  json.raw("blocks", counts.object());
  json.number("chunks", map.chunk_count());
  json.number("dirty_chunks", map.count());
  json.number("dirty_bytes", map.dirty_bytes());
  return json.object();
}

std::string dump_superblock(MetadataIo& io, uint64_t block_number, uint32_t copy,
                            SuperblockParse* parse) {
  Json json;
  json.number("copy", copy);
  json.number("offset", block_number * kBlockSize);
  Blocks block(1);
  if (const int error = block.read(io, block_number, 1); error != 0) {
    parse->error = SuperblockError::kChecksum;
    json.text("status", "unreadable");
    json.text("message", std::strerror(-error));
    return json.object();
  }
  *parse = parse_superblock(block.at(0));
  json.text("status", status_word(parse->error));
  if (!parse->message.empty()) json.text("message", parse->message);
  if (parse->error == SuperblockError::kNone || parse->error == SuperblockError::kGeometry) {
    dump_fields(parse->superblock, &json);
  }
  return json.object();
}

}  // namespace

std::string dump_metadata(MetadataIo& io, uint64_t area_bytes) {
  Json json;
  const uint64_t area_blocks = area_bytes / kBlockSize;
  if (area_blocks < 2) {
    json.text("message", "the area is too small to hold metadata");
    return json.object();
  }
  std::array<SuperblockParse, 2> parsed;
  Json copies;
  copies.item(dump_superblock(io, 0, 0, &parsed[0]));
  copies.item(dump_superblock(io, area_blocks - 1, 1, &parsed[1]));
  json.raw("superblocks", copies.array());

  const Superblock* best = nullptr;
  for (const SuperblockParse& parse : parsed) {
    if (parse.error != SuperblockError::kNone) continue;
    if (best == nullptr || parse.superblock.serial > best->serial) best = &parse.superblock;
  }
  if (best == nullptr) {
    json.text("message", "no superblock says where the logs and the maps are");
    return json.object();
  }
  const Layout layout = make_layout(best->geometry);
  if (layout.bytes() > area_bytes) {
    json.text("message", "the superblock tells of " + std::to_string(layout.bytes()) +
                             " bytes of metadata, the area has " + std::to_string(area_bytes));
    return json.object();
  }
  Json logs;
  for (uint32_t node_slot = 0; node_slot < layout.geometry.node_slots; ++node_slot) {
    logs.item(dump_log(io, *best, layout, node_slot));
  }
  json.raw("activity_logs", logs.array());
  Json maps;
  for (uint32_t slot = 0; slot < layout.geometry.peer_slots; ++slot) {
    if ((best->slots[slot].flags & kSlotInUse) != 0) maps.item(dump_map(io, *best, layout, slot));
  }
  json.raw("dirty_maps", maps.array());
  return json.object();
}

}  // namespace tidemark
