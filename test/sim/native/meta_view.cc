#include "meta_view.h"

#include <array>
#include <cstring>
#include <memory>

#include "core/log_block.h"

namespace tidemark::sim {
namespace {

uint64_t first_word(const Uuid& id) {
  uint64_t word = 0;
  std::memcpy(&word, id.bytes, sizeof word);
  return word;
}

uint32_t slot_of(const Superblock& sb, const Uuid& peer) {
  for (uint32_t slot = 0; slot < kMaxPeerSlots; ++slot) {
    if ((sb.slots[slot].flags & kSlotInUse) != 0 && sb.slots[slot].node_id == peer) return slot;
  }
  return kNoSlot;
}

}  // namespace

void add_chunks(Bits* pages, uint64_t first_chunk, uint64_t word, uint32_t chunk_bytes) {
  const uint64_t chunk_pages = chunk_bytes / kPageBytes;
  if (chunk_pages == 1) {
    pages->add_word(first_chunk / 64, word);
    return;
  }
  for (; word != 0; word &= word - 1) {
    const uint64_t chunk = first_chunk + static_cast<uint64_t>(std::countr_zero(word));
    pages->set_range(chunk * chunk_pages, chunk_pages);
  }
}

MetaView::MetaView(Machine& machine, Of of)
    : machine_(machine),
      of_(of),
      base_(machine.meta_offset() / kPageBytes),
      map_listed_(machine.layout().total_blocks, false),
      map_blocks_(machine.layout().total_blocks - machine.layout().map_first_block - 1),
      cover_(machine.volume_pages()) {
  const Layout& layout = machine.layout();
  for (uint64_t number = layout.map_first_block; number + 1 < layout.total_blocks; ++number)
    changed(of, base_ + number);
  machine_.meta().watch(this);
}

MetaView::~MetaView() { machine_.meta().unwatch(this); }

void MetaView::changed(Of of, uint64_t page) {
  if (of != of_ || page < base_) return;
  const Layout& layout = machine_.layout();
  const uint64_t number = page - base_;
  if (number == 0 || number + 1 == layout.total_blocks) {
    superblock_changed_ = true;
  } else if (number < layout.map_first_block) {
    log_changed_ = true;
  } else if (!map_listed_[number]) {
    map_listed_[number] = true;
    map_changed_.push_back(number);
  }
}

std::span<const uint8_t, kBlockSize> MetaView::block(uint64_t number) const {
  const Disk& disk = machine_.meta();
  const PageTable& table = of_ == Of::kDurable ? disk.durable() : disk.cached();
  return std::span<const uint8_t, kBlockSize>(table.at(base_ + number).bytes(), kBlockSize);
}

bool MetaView::written(uint64_t number) const {
  const Disk& disk = machine_.meta();
  return static_cast<bool>(
      (of_ == Of::kDurable ? disk.durable() : disk.cached()).at(base_ + number));
}

// As read_superblock() in csrc/core/attach.cc chooses.
void MetaView::read_superblocks() {
  const Uuid before = superblock_.metadata_id;
  usable_ = false;
  for (const uint32_t copy : {0u, 1u}) {
    const SuperblockParse parse = parse_superblock(block(machine_.layout().superblock_block(copy)));
    if (parse.error != SuperblockError::kNone) continue;
    if (usable_ && parse.superblock.serial <= superblock_.serial) continue;
    superblock_ = parse.superblock;
    usable_ = true;
  }
  log_changed_ = true;  // where it starts may be another place now
  if (!usable_ || before == superblock_.metadata_id) return;
  for (uint64_t at = 0; at < map_blocks_.size(); ++at)
    changed(of_, base_ + machine_.layout().map_first_block + at);
}

// As read_ring() there.
void MetaView::read_logs() {
  const Layout& layout = machine_.layout();
  const uint64_t blocks = layout.log_ring_blocks;
  log_unusable_.clear();
  hot_.clear();
  for (uint32_t node_slot = 0; node_slot < layout.geometry.node_slots; ++node_slot) {
    const uint64_t first = layout.log_first_block + node_slot * blocks;
    const uint64_t start = node_slot == superblock_.node_slot ? superblock_.log_start_number : 1;
    const LogBlockName name{first_word(superblock_.metadata_id), node_slot,
                            layout.geometry.log_extents};
    std::vector<LogTransaction> transactions(blocks);
    std::vector<const LogTransaction*> good(blocks, nullptr);
    const auto blank = std::make_unique<bool[]>(blocks);
    bool any = false;
    for (uint64_t at = 0; at < blocks; ++at) {
      blank[at] = true;
      if (!written(first + at)) continue;
      any = true;
      const LogBlockStatus status = parse_log_block(name, block(first + at), &transactions[at]);
      const bool old = status == LogBlockStatus::kGood && transactions[at].number < start;
      blank[at] = status == LogBlockStatus::kNeverWritten || old;
      if (status == LogBlockStatus::kGood && !old) good[at] = &transactions[at];
    }
    if (!any) continue;
    const LogReplay replay = replay_log(good, std::span<const bool>(blank.get(), blocks),
                                        layout.geometry.log_extents, start);
    if (replay.status == LogReplay::Status::kUnusable)
      log_unusable_ = replay.why != nullptr ? replay.why : "unusable";
    hot_.insert(hot_.end(), replay.extents.begin(), replay.extents.end());
  }
}

void MetaView::read_map_block(uint64_t number) {
  const Layout& layout = machine_.layout();
  const uint64_t at = number - layout.map_first_block;
  MapBlock& out = map_blocks_[at];
  if (!written(number)) {
    out.status = MapBlockStatus::kNeverWritten;
    return;
  }
  const MapBlockName name{first_word(superblock_.metadata_id),
                          static_cast<uint32_t>(at / layout.map_slot_blocks),
                          at % layout.map_slot_blocks, layout.geometry.chunk_bytes};
  out.words.resize(kMapBlockWords);
  out.status = parse_map_block(name, block(number), out.words);
}

void MetaView::refresh() {
  if (!superblock_changed_ && !log_changed_ && map_changed_.empty()) return;
  ++version_;
  if (superblock_changed_) read_superblocks();
  superblock_changed_ = false;
  if (!usable_) return;
  if (log_changed_) read_logs();
  log_changed_ = false;
  for (const uint64_t number : map_changed_) {
    read_map_block(number);
    map_listed_[number] = false;
  }
  map_changed_.clear();
}

void MetaView::add_map(uint32_t slot, Bits* bits) const {
  const Layout& layout = machine_.layout();
  const uint32_t chunk_bytes = layout.geometry.chunk_bytes;
  for (uint64_t index = 0; index < layout.map_slot_blocks; ++index) {
    const MapBlock& from = map_blocks_[slot * layout.map_slot_blocks + index];
    if (from.status == MapBlockStatus::kNeverWritten) continue;
    for (uint64_t at = 0; at < kMapBlockWords; ++at) {
      const uint64_t word = from.status == MapBlockStatus::kGood ? from.words[at] : ~uint64_t{0};
      if (word != 0) add_chunks(bits, (index * kMapBlockWords + at) * 64, word, chunk_bytes);
    }
  }
}

const Bits& MetaView::cover(const Uuid& peer) {
  refresh();
  if (covered_version_ == version_ && covered_peer_ == peer) return cover_;
  covered_version_ = version_;
  covered_peer_ = peer;
  const uint32_t slot = usable_ ? slot_of(superblock_, peer) : kNoSlot;
  if (slot == kNoSlot || (superblock_.slots[slot].flags & kSlotAllDirty) != 0 ||
      !log_unusable_.empty()) {
    cover_.set_all();
    return cover_;
  }
  cover_.clear_all();
  add_map(slot, &cover_);
  const uint64_t extent_pages = machine_.layout().geometry.extent_bytes / kPageBytes;
  for (const uint32_t extent : hot_) cover_.set_range(extent * extent_pages, extent_pages);
  return cover_;
}

std::string MetaView::explain(const Uuid& peer, uint64_t page) {
  refresh();
  if (!usable_) return "no usable superblock";
  const uint32_t slot = slot_of(superblock_, peer);
  if (slot == kNoSlot) return "no slot for the peer";
  if ((superblock_.slots[slot].flags & kSlotAllDirty) != 0) return "all dirty";
  if (!log_unusable_.empty()) return "log unusable: " + log_unusable_;
  Bits bits(cover_.size());
  add_map(slot, &bits);
  const uint64_t extent = page * kPageBytes / machine_.layout().geometry.extent_bytes;
  const bool hot = std::find(hot_.begin(), hot_.end(), extent) != hot_.end();
  return std::string("bit ") + (bits.test(page) ? "set" : "clear") + ", extent " +
         std::to_string(extent) + (hot ? " hot" : " cold");
}

}  // namespace tidemark::sim
