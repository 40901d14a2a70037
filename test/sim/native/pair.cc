#include "pair.h"

#include <memory>
#include <stdexcept>

#include "inside.h"
#include "process.h"

namespace tidemark::sim {
namespace {

std::vector<std::unique_ptr<Pair>>& pairs() {
  static auto* all = new std::vector<std::unique_ptr<Pair>>();
  return *all;
}

const VolumeImpl* volume_of(const Machine& machine) {
  return machine.process != nullptr ? machine.process->volume() : nullptr;
}

uint32_t slot_of(const Superblock& sb, const Uuid& peer) {
  for (uint32_t slot = 0; slot < kMaxPeerSlots; ++slot) {
    if ((sb.slots[slot].flags & kSlotInUse) != 0 && sb.slots[slot].node_id == peer) return slot;
  }
  return kNoSlot;
}

template <typename Each>
void each_sent(const VolumeImpl& volume, Each each) {
  // find() is not const, and changes nothing.
  auto& transfer = const_cast<TransferLog&>(volume.transfer);
  for (uint64_t sequence = transfer.base(); sequence < transfer.next_sequence(); ++sequence) {
    if (const TransferEntry* entry = transfer.find(sequence)) each(*entry);
  }
}

uint64_t first_page(ByteRange range) { return range.offset / kPageBytes; }
uint64_t page_count(ByteRange range) {
  return (range.end() + kPageBytes - 1) / kPageBytes - first_page(range);
}

}  // namespace

Bits slot_cover(const Attachment& attachment, const Uuid& peer, uint64_t pages) {
  Bits bits(pages);
  const uint32_t slot = slot_of(attachment.superblock, peer);
  if (slot == kNoSlot || attachment.maps[slot] == nullptr) {
    bits.set_all();
    return bits;
  }
  const DirtyMap& map = *attachment.maps[slot];
  const LazyBitmap& words = inside(map);
  for (uint64_t at = 0; at < words.word_count(); ++at) {
    if (words.word(at) != 0) add_chunks(&bits, at * 64, words.word(at), map.chunk_bytes());
  }
  return bits;
}

Pair::Side::Side(Pair& its_pair, Machine& its_machine)
    : pair(its_pair),
      machine(its_machine),
      cached(its_machine, MetaView::Of::kCached),
      durable(its_machine, MetaView::Of::kDurable) {}

Pair::Side::~Side() { machine.data().unwatch(this); }

Pair& Pair::of(Machine& a, Machine& b) {
  for (const auto& pair : pairs()) {
    if (&pair->a_.machine == &a && &pair->b_.machine == &b) return *pair;
  }
  if (&a == &b || a.volume_bytes() != b.volume_bytes())
    throw std::runtime_error(a.options().name + " and " + b.options().name +
                             " are no copies of each other");
  pairs().push_back(std::make_unique<Pair>(a, b));
  return *pairs().back();
}

void Pair::forget(Machine& machine) {
  std::erase_if(pairs(), [&](const std::unique_ptr<Pair>& pair) {
    return &pair->a_.machine == &machine || &pair->b_.machine == &machine;
  });
}

Pair::Pair(Machine& a, Machine& b)
    : a_(*this, a), b_(*this, b), pages_(a.volume_pages()), differing_(pages_), listed_(pages_) {
  a.data().watch(&a_);
  b.data().watch(&b_);
  for (uint64_t page = 0; page < pages_; ++page) touch(page);
}

void Pair::touch(uint64_t page) {
  if (page >= pages_ || listed_.test(page)) return;  // beyond is metadata
  listed_.set(page);
  touched_.push_back(page);
}

void Pair::refresh() {
  const PageTable& a = a_.machine.data().cached();
  const PageTable& b = b_.machine.data().cached();
  for (const uint64_t page : touched_) {
    listed_.clear(page);
    a.at(page).equals(b.at(page)) ? differing_.clear(page) : differing_.set(page);
  }
  touched_.clear();
}

std::vector<uint32_t> Pair::chunks_of(const Bits& pages) const {
  const uint64_t chunk_pages = a_.machine.layout().geometry.chunk_bytes / kPageBytes;
  std::vector<uint32_t> chunks;
  pages.each([&](uint64_t page) {
    const auto chunk = static_cast<uint32_t>(page / chunk_pages);
    if (chunks.empty() || chunks.back() != chunk) chunks.push_back(chunk);
  });
  return chunks;
}

std::vector<uint32_t> Pair::differing() {
  refresh();
  return chunks_of(differing_);
}

// What the next handshake would find without a crash in between.
Bits Pair::ram_cover(Side& side, const Uuid& peer) const {
  const VolumeImpl* volume = volume_of(side.machine);
  if (volume == nullptr) return side.cached.cover(peer);
  return slot_cover(*volume->attachment, peer, pages_);
}

void Pair::remove_in_flight(const Side& side, const Uuid& peer, Bits* bits) const {
  const VolumeImpl* volume = volume_of(side.machine);
  if (volume == nullptr) return;
  if (volume->link.slot != kNoSlot && volume->sb().slots[volume->link.slot].node_id == peer) {
    each_sent(*volume, [&](const TransferEntry& entry) {
      if (!entry.resync) bits->clear_range(first_page(entry.range), page_count(entry.range));
    });
  }
  for (const Io* io : side.machine.process->in_flight()) {
    if (io->target != IoTarget::kData || io->kind == IoKind::kRead || io->length == 0) continue;
    const ByteRange range{io->offset, io->length};
    bits->clear_range(first_page(range), page_count(range));
  }
}

std::vector<uint32_t> Pair::uncovered() {
  refresh();
  if (differing_.none()) return {};
  const Uuid& a = a_.machine.node_id();
  const Uuid& b = b_.machine.node_id();
  Bits durable = differing_;
  durable.remove(a_.durable.cover(b));
  durable.remove(b_.durable.cover(a));
  Bits ram = differing_;
  ram.remove(ram_cover(a_, b));
  if (!ram.none()) ram.remove(ram_cover(b_, a));
  if (!ram.none()) {
    remove_in_flight(a_, b, &ram);
    remove_in_flight(b_, a, &ram);
  }
  durable.add(ram);
  if (durable.none()) return {};
  return chunks_of(durable);
}

std::vector<uint32_t> Pair::uncovered_after_crash(uint64_t seed, bool cut_a, bool cut_b) {
  refresh();
  Random random(seed);
  struct After {
    Disk data;
    Disk meta;
    bool alive = false;
    Bits cover;
  };
  Bits candidates = differing_;
  const auto crash = [&](Side& side, bool cut, const Uuid& peer) {
    Machine& machine = side.machine;
    const bool external = machine.options().external;
    After after{machine.data().clone(), external ? machine.meta().clone() : Disk(0, true), false,
                Bits(pages_)};
    const VolumeImpl* volume = volume_of(machine);
    after.alive = !cut && volume != nullptr && random.below(2) == 0;
    if (after.alive) {
      after.cover = slot_cover(*volume->attachment, peer, pages_);
      return after;
    }
    Disk& meta = external ? after.meta : after.data;
    if (machine.process != nullptr) {
      std::vector<const Io*> out(machine.process->in_flight().begin(),
                                 machine.process->in_flight().end());
      while (!out.empty()) {
        const size_t at = random.below(out.size());
        const Io& io = *out[at];
        out.erase(out.begin() + static_cast<ptrdiff_t>(at));
        const bool data = io.target == IoTarget::kData;
        take_part(io, io.offset + (data ? 0 : machine.meta_offset()), data ? after.data : meta,
                  random);
        if (data && io.length != 0)
          candidates.set_range(io.offset / kPageBytes, page_count({io.offset, io.length}));
      }
    }
    if (cut) {
      for (const uint64_t page : after.data.volatile_pages()) candidates.set_range(page, 1);
      after.data.power_cut(random);
      if (external) after.meta.power_cut(random);
    }
    std::unique_ptr<Attachment> attachment;
    MetadataError error;
    machine.attach(meta, nullptr, nullptr, nullptr, &attachment, &error);
    if (!error.code.empty())
      throw std::runtime_error("after a crash " + machine.options().name +
                               " refuses to attach: " + error.code + ": " + error.message);
    after.cover = slot_cover(*attachment, peer, pages_);
    return after;
  };
  const Uuid& id_a = a_.machine.node_id();
  const Uuid& id_b = b_.machine.node_id();
  const After a = crash(a_, cut_a, id_b);
  const After b = crash(b_, cut_b, id_a);
  candidates.remove(a.cover);
  candidates.remove(b.cover);
  Bits left(pages_);
  candidates.each([&](uint64_t page) {
    if (!a.data.cached().at(page).equals(b.data.cached().at(page))) left.set(page);
  });
  if (left.none()) return {};
  if (a.alive) remove_in_flight(a_, id_b, &left);
  if (b.alive) remove_in_flight(b_, id_a, &left);
  return chunks_of(left);
}

std::string Pair::explain(uint64_t chunk) {
  refresh();
  const uint64_t chunk_pages = a_.machine.layout().geometry.chunk_bytes / kPageBytes;
  const uint64_t first = chunk * chunk_pages;
  if (first >= pages_) return "no such chunk";
  uint64_t page = first;
  while (page + 1 < std::min(first + chunk_pages, pages_) && !differing_.test(page)) ++page;
  std::string text =
      "page " + std::to_string(page) + (differing_.test(page) ? " differs" : " is equal") + "; ";
  const auto side = [&](Side& one, const Uuid& peer) {
    text += one.machine.options().name + ": durable " + one.durable.explain(peer, page);
    text += ", cached " + one.cached.explain(peer, page);
    const VolumeImpl* volume = volume_of(one.machine);
    if (volume == nullptr) {
      text += ", not running";
      return;
    }
    const bool bit = slot_cover(*volume->attachment, peer, pages_).test(page);
    text += bit ? ", RAM bit set" : ", RAM bit clear";
    each_sent(*volume, [&](const TransferEntry& entry) {
      if (page < first_page(entry.range) ||
          page >= first_page(entry.range) + page_count(entry.range))
        return;
      text += std::string(", sent ") + (entry.resync ? "(resync) " : "") + "as " +
              std::to_string(entry.sequence) + " in epoch " + std::to_string(entry.epoch);
    });
    for (const Io* io : one.machine.process->in_flight()) {
      if (io->target != IoTarget::kData || io->length == 0) continue;
      if (page >= io->offset / kPageBytes && page * kPageBytes < io->offset + io->length)
        text += ", I/O in flight";
    }
  };
  side(a_, b_.machine.node_id());
  text += "; ";
  side(b_, a_.machine.node_id());
  return text;
}

}  // namespace tidemark::sim
