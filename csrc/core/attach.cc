#include "core/attach.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "core/activity_log.h"
#include "core/hex.h"
#include "core/log_block.h"
#include "core/map_block.h"

namespace tidemark {

namespace {

constexpr uint64_t kBatchBlocks = 256;  // metadata is read and written 1 MiB at a time
// A map block that did not change is written, too, when it lies between two that did and are not
// further apart than this: the disk takes it in less time than another write.
constexpr uint64_t kGapBlocks = 16;

struct FreeBuffer {
  void operator()(uint8_t* buffer) const { std::free(buffer); }
};
using Buffer = std::unique_ptr<uint8_t, FreeBuffer>;

Buffer make_buffer(uint64_t blocks) {
  uint8_t* bytes = static_cast<uint8_t*>(std::aligned_alloc(kBlockSize, blocks * kBlockSize));
  if (bytes == nullptr) throw std::bad_alloc();
  std::memset(bytes, 0, blocks * kBlockSize);
  return Buffer(bytes);
}

std::span<uint8_t, kBlockSize> block_at(const Buffer& buffer, uint64_t index) {
  return std::span<uint8_t, kBlockSize>(buffer.get() + index * kBlockSize, kBlockSize);
}

MetadataError io_error(const char* what, int error) {
  return {"METADATA_IO", std::string(what) + " failed: " + std::strerror(-error)};
}

// `first`: the copy that is written first. The other one must hold until that is durable (R14).
std::optional<MetadataError> write_superblock(MetadataIo& io, const Layout& layout, uint32_t first,
                                              Superblock* sb) {
  ++sb->serial;
  const Buffer buffer = make_buffer(1);
  for (const uint32_t copy : {first, 1 - first}) {
    encode_superblock(*sb, copy, block_at(buffer, 0));
    if (const int error =
            io.write(layout.superblock_block(copy) * kBlockSize, buffer.get(), kBlockSize);
        error != 0) {
      return io_error("writing the superblock", error);
    }
    if (const int error = io.flush(); error != 0) return io_error("flushing the superblock", error);
  }
  return std::nullopt;
}

struct RingRead {
  LogReplay replay;
  std::vector<LogTransaction> transactions;
};

// `start_number`: transactions before it count as never written (superblock.h).
std::optional<MetadataError> read_ring(MetadataIo& io, const Superblock& sb, const Layout& layout,
                                       uint32_t node_slot, RingRead* out) {
  const uint64_t blocks = layout.log_ring_blocks;
  const Buffer buffer = make_buffer(blocks);
  const uint64_t first = layout.log_first_block + node_slot * blocks;
  if (const int error = io.read(first * kBlockSize, buffer.get(), blocks * kBlockSize);
      error != 0) {
    return io_error("reading the activity log", error);
  }
  const LogBlockName name{sb.short_id(), node_slot, layout.geometry.log_extents};
  std::vector<const LogTransaction*> good(blocks, nullptr);
  const auto blank = std::make_unique<bool[]>(blocks);
  out->transactions.resize(blocks);
  const uint64_t start = node_slot == sb.node_slot ? sb.log_start_number : 1;
  for (uint64_t block = 0; block < blocks; ++block) {
    const LogBlockStatus status =
        parse_log_block(name, block_at(buffer, block), &out->transactions[block]);
    blank[block] = status == LogBlockStatus::kNeverWritten ||
                   (status == LogBlockStatus::kGood && out->transactions[block].number < start);
    if (status == LogBlockStatus::kGood && !blank[block]) good[block] = &out->transactions[block];
  }
  out->replay = replay_log(good, std::span<const bool>(blank.get(), blocks),
                           layout.geometry.log_extents, start);
  out->replay.next_number = std::max(out->replay.next_number, start);
  if (out->replay.status == LogReplay::Status::kUnusable) {
    // A new log must not be mistaken for part of what is left of this one.
    for (const LogTransaction* transaction : good) {
      if (transaction != nullptr)
        out->replay.next_number = std::max(out->replay.next_number, transaction->number + 1);
    }
  }
  return std::nullopt;
}

std::optional<MetadataError> read_maps(MetadataIo& io, const Superblock& sb, const Layout& layout,
                                       Attachment* out) {
  const Buffer buffer = make_buffer(std::min(kBatchBlocks, layout.map_slot_blocks));
  const uint64_t volume_bytes = layout.geometry.volume_bytes;
  for (uint32_t slot = 0; slot < layout.geometry.peer_slots; ++slot) {
    const PeerSlot& peer = sb.slots[slot];
    if ((peer.flags & kSlotInUse) == 0) continue;
    auto map = std::make_unique<DirtyMap>(volume_bytes, layout.geometry.chunk_bytes);
    if ((peer.flags & kSlotAllDirty) != 0) {
      map->mark_all();
      out->maps[slot] = std::move(map);
      continue;
    }
    uint64_t untrusted = 0;
    for (uint64_t at = 0; at < map->block_count(); at += kBatchBlocks) {
      const uint64_t count = std::min(kBatchBlocks, map->block_count() - at);
      const uint64_t first = layout.map_block(slot, at);
      const bool readable = io.read(first * kBlockSize, buffer.get(), count * kBlockSize) == 0;
      std::array<uint64_t, kMapBlockWords> words;
      for (uint64_t index = 0; index < count; ++index) {
        const MapBlockName name{sb.short_id(), slot, at + index, layout.geometry.chunk_bytes};
        const auto block = block_at(buffer, index);
        // One bad sector shall cost what its own block stands for, and not the whole batch.
        const bool have =
            readable || io.read((first + index) * kBlockSize, block.data(), kBlockSize) == 0;
        // Unreadable is like untrusted: what cannot be read counts as dirty (R15).
        switch (have ? parse_map_block(name, block, words) : MapBlockStatus::kUntrusted) {
          case MapBlockStatus::kGood:
            map->load_block(at + index, words);
            break;
          case MapBlockStatus::kNeverWritten:
            break;
          case MapBlockStatus::kUntrusted:
            map->load_untrusted(at + index);
            ++untrusted;
            break;
        }
      }
    }
    if (untrusted != 0) {
      out->warnings.push_back(std::to_string(untrusted) + " map blocks of peer slot " +
                              std::to_string(slot) +
                              " cannot be trusted; what they stand for counts as dirty");
    }
    out->maps[slot] = std::move(map);
  }
  return std::nullopt;
}

// Where the batch of blocks ends that is written at once and begins with the stale block `first`.
uint64_t end_of_batch(const DirtyMap& map, uint64_t first) {
  uint64_t last = first;
  for (std::optional<uint64_t> next = map.next_stale(last + 1); next;
       next = map.next_stale(last + 1)) {
    if (*next - last > kGapBlocks || *next - first >= kBatchBlocks) break;
    last = *next;
  }
  return last + 1;
}

std::optional<MetadataError> write_stale_maps(MetadataIo& io, const Attachment& attachment) {
  const Layout& layout = attachment.layout;
  const Buffer buffer = make_buffer(std::min(kBatchBlocks, layout.map_slot_blocks));
  std::array<uint64_t, kMapBlockWords> words;
  for (uint32_t slot = 0; slot < kMaxPeerSlots; ++slot) {
    DirtyMap* map = attachment.maps[slot].get();
    // An all-dirty slot says so in the superblock; its blocks follow with the sweeps.
    if (map == nullptr || (attachment.superblock.slots[slot].flags & kSlotAllDirty) != 0) continue;
    std::vector<uint64_t> written;
    uint64_t end = 0;
    for (std::optional<uint64_t> first = map->next_stale(0); first; first = map->next_stale(end)) {
      end = end_of_batch(*map, *first);
      for (uint64_t block = *first; block < end; ++block) {
        map->begin_write(block, words);
        encode_map_block({attachment.superblock.short_id(), slot, block, map->chunk_bytes()}, words,
                         block_at(buffer, block - *first));
        written.push_back(block);
      }
      if (const int error = io.write(layout.map_block(slot, *first) * kBlockSize, buffer.get(),
                                     (end - *first) * kBlockSize);
          error != 0) {
        return io_error("writing map blocks", error);
      }
    }
    for (const uint64_t block : written) map->end_write(block, true);
  }
  if (const int error = io.flush(); error != 0) return io_error("flushing the maps", error);
  return std::nullopt;
}

}  // namespace

std::optional<MetadataError> create_metadata(MetadataIo& io, const Superblock& superblock,
                                             const Layout& layout, bool zeroed) {
  if (!zeroed) {
    const Buffer zeroes = make_buffer(std::min(kBatchBlocks, layout.total_blocks));
    for (uint64_t at = 0; at < layout.total_blocks; at += kBatchBlocks) {
      const uint64_t count = std::min(kBatchBlocks, layout.total_blocks - at);
      if (const int error = io.write(at * kBlockSize, zeroes.get(), count * kBlockSize);
          error != 0) {
        return io_error("zeroing the metadata area", error);
      }
    }
    if (const int error = io.flush(); error != 0)
      return io_error("flushing the metadata area", error);
  }
  Superblock sb = superblock;
  return write_superblock(io, layout, 0, &sb);
}

std::optional<MetadataError> read_superblock(MetadataIo& io, uint64_t area_bytes, Superblock* out,
                                             std::vector<std::string>* warnings,
                                             uint32_t* best_copy) {
  if (area_bytes < 2 * kBlockSize)
    return MetadataError{"METADATA_BLANK", "the metadata area is too small to hold anything"};
  const Buffer buffer = make_buffer(2);
  const uint64_t places[2] = {0, area_bytes / kBlockSize * kBlockSize - kBlockSize};
  SuperblockParse parsed[2];
  for (int copy = 0; copy < 2; ++copy) {
    if (const int error = io.read(places[copy], buffer.get() + copy * kBlockSize, kBlockSize);
        error != 0) {
      parsed[copy].error = SuperblockError::kChecksum;
      parsed[copy].message = std::string("cannot be read: ") + std::strerror(-error);
      continue;
    }
    parsed[copy] = parse_superblock(block_at(buffer, copy));
  }
  // A newer program's copy is never second-guessed by an older copy beside it.
  for (int copy = 0; copy < 2; ++copy) {
    if (parsed[copy].error == SuperblockError::kVersionNewer) {
      return MetadataError{"METADATA_VERSION",
                           "superblock copy " + std::to_string(copy) + ": " + parsed[copy].message};
    }
  }
  const bool good[2] = {parsed[0].error == SuperblockError::kNone,
                        parsed[1].error == SuperblockError::kNone};
  if (good[0] && good[1] &&
      !(parsed[0].superblock.metadata_id == parsed[1].superblock.metadata_id)) {
    return MetadataError{
        "METADATA_DAMAGED",
        "the two superblock copies belong to different metadata (" +
            hex(parsed[0].superblock.metadata_id) + " and " +
            hex(parsed[1].superblock.metadata_id) +
            "): the backing was resized or overwritten; look at both with dump-md"};
  }
  if (good[0] || good[1]) {
    const int best =
        !good[0] || (good[1] && parsed[1].superblock.serial > parsed[0].superblock.serial) ? 1 : 0;
    if (!good[1 - best]) {
      warnings->push_back("superblock copy " + std::to_string(1 - best) + " is unusable (" +
                          parsed[1 - best].message +
                          "); the other one counts and it is written anew");
    }
    *out = parsed[best].superblock;
    if (best_copy != nullptr) *best_copy = static_cast<uint32_t>(best);
    return std::nullopt;
  }
  const int named = parsed[0].error == SuperblockError::kBlank ? 1 : 0;
  return MetadataError{
      error_code(parsed[named].error),
      "no usable superblock: copy 0: " + parsed[0].message + "; copy 1: " + parsed[1].message};
}

std::optional<MetadataError> attach_metadata(MetadataIo& io, uint64_t area_bytes,
                                             const Expectation& expected,
                                             std::unique_ptr<Attachment>* out) {
  auto attachment = std::make_unique<Attachment>();
  Superblock& sb = attachment->superblock;
  uint32_t best = 0;
  if (auto error = read_superblock(io, area_bytes, &sb, &attachment->warnings, &best)) return error;
  attachment->layout = make_layout(sb.geometry);
  const Layout& layout = attachment->layout;
  if (layout.bytes() > area_bytes) {
    return MetadataError{"METADATA_DAMAGED", "the metadata need " + std::to_string(layout.bytes()) +
                                                 " bytes and the area has " +
                                                 std::to_string(area_bytes)};
  }
  if (expected.device_bytes != 0 && sb.device_bytes != expected.device_bytes) {
    return MetadataError{
        "METADATA_MISMATCH",
        "the backing disk has " + std::to_string(expected.device_bytes) + " bytes; it had " +
            std::to_string(sb.device_bytes) +
            " when the metadata were created: give it that size again (and "
            "'tidemark invalidate' this copy, if a part of it was lost), or make "
            "a new copy of it with 'tidemark create --force', which the peer fills"};
  }
  if (expected.block_bytes != 0 && sb.block_bytes % expected.block_bytes != 0 &&
      expected.block_bytes > sb.block_bytes &&
      sb.geometry.volume_bytes % expected.block_bytes != 0) {
    return MetadataError{"METADATA_MISMATCH", "the backing disk's logical block is " +
                                                  std::to_string(expected.block_bytes) +
                                                  " bytes and the volume's size " +
                                                  std::to_string(sb.geometry.volume_bytes) +
                                                  " is no multiple of it"};
  }
  attachment->crashed = (sb.flags & kNodeAttached) != 0;
  if ((sb.flags & kNodePrimary) != 0) {
    sb.flags |= kNodeCrashedPrimary;
    sb.flags &= ~kNodePrimary;
  }
  if (auto error = read_maps(io, sb, layout, attachment.get())) return error;

  bool ring_unusable = false;
  // R13: every non-empty log is replayed, whoever's it was; unused slots are asked too.
  for (uint32_t node_slot = 0; node_slot < layout.geometry.node_slots; ++node_slot) {
    RingRead ring;
    if (auto error = read_ring(io, sb, layout, node_slot, &ring)) return error;
    if (ring.replay.status == LogReplay::Status::kUnusable) {
      ring_unusable = ring_unusable || node_slot == sb.node_slot;
      // Nothing tells which extents were hot: everything is dirty, for everybody.
      attachment->warnings.push_back(
          "the activity log of node slot " + std::to_string(node_slot) + " is unusable (" +
          (ring.replay.why != nullptr ? ring.replay.why : "?") + "): all chunks count as dirty");
      for (uint32_t slot = 0; slot < kMaxPeerSlots; ++slot) {
        if (attachment->maps[slot] == nullptr) continue;
        attachment->replayed_chunks +=
            attachment->maps[slot]->chunk_count() - attachment->maps[slot]->count();
        attachment->maps[slot]->mark_all();
        sb.slots[slot].flags |= kSlotAllDirty;
      }
    }
    const uint64_t extent_bytes = layout.geometry.extent_bytes;
    for (const uint32_t extent : ring.replay.extents) {
      const uint64_t begin = extent * extent_bytes;
      if (begin >= layout.geometry.volume_bytes) continue;
      const ByteRange range{begin, std::min(extent_bytes, layout.geometry.volume_bytes - begin)};
      for (const auto& map : attachment->maps) {
        if (map != nullptr) attachment->replayed_chunks += map->mark(range);
      }
    }
    attachment->replayed_extents += ring.replay.extents.size();
    if (node_slot == sb.node_slot) attachment->log_next_number = ring.replay.next_number;
  }
  // R3: what the log lets go of below, the disk of a killed daemon may still hold in its cache
  // only, and the marks made of it are cleared when the peer has the data durably.
  if (attachment->crashed) {
    int error = io.flush_data();
    if (error == 0) error = io.flush();
    if (error != 0) {
      // R11: the next flush will not say it again, and so the superblock does. Whoever was primary
      // has the only copy of what it wrote alone; a secondary's is the primary's, too.
      const bool primary = (sb.flags & kNodeCrashedPrimary) != 0;
      sb.flags &= ~(primary ? kNodeWasUpToDate : kNodeConsistent | kNodeWasUpToDate);
      MetadataError failed = io_error("flushing the backing disk", error);
      failed.message +=
          write_superblock(io, layout, 1 - best, &sb)
              ? "; nor could that be noted in the metadata"
              : "; what it had not flushed may be lost, so that it no longer counts as UpToDate";
      return failed;
    }
  }
  // Durable before the log is used again; then the log is empty and the node says that it is
  // attached.
  if (auto error = write_stale_maps(io, *attachment)) return error;
  sb.log_start_number = attachment->log_next_number;
  sb.flags |= kNodeAttached;
  if (auto error = write_superblock(io, layout, 1 - best, &sb)) return error;
  if (ring_unusable) {
    // All dirty is durable now. Without this, what is damaged would be found, and everything
    // marked, at every attach.
    const Buffer zeroes = make_buffer(layout.log_ring_blocks);
    const uint64_t first = layout.log_first_block + sb.node_slot * layout.log_ring_blocks;
    if (const int error =
            io.write(first * kBlockSize, zeroes.get(), layout.log_ring_blocks * kBlockSize);
        error != 0) {
      return io_error("zeroing the unusable activity log", error);
    }
    if (const int error = io.flush(); error != 0)
      return io_error("flushing the activity log", error);
  }
  *out = std::move(attachment);
  return std::nullopt;
}

}  // namespace tidemark
