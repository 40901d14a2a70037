#include "core/activity_log.h"

#include <algorithm>
#include <bit>
#include <cassert>

namespace tidemark {

ActivityLog::ActivityLog(uint32_t extents, uint64_t extent_count, uint64_t next_number)
    : slots_(extents), extent_count_(extent_count), next_number_(next_number) {
  assert(extents >= kExtentsMin && extents <= kExtentsMax);
  assert(extent_count > 0 && extent_count <= kExtentNone);
  // Extents in the table and queued ones, at most twice the slots, in a table that is never more
  // than two thirds full, and seldom more than one.
  places_.resize(std::bit_ceil(size_t{extents} * 3));
  place_shift_ = 32u - static_cast<uint32_t>(std::countr_zero(places_.size()));
  empty_.reserve(extents);
  for (uint32_t slot = extents; slot > 0; --slot) empty_.push_back(slot - 1);
  transaction_.updates.reserve(kLogUpdates);
  transaction_.evicted.reserve(kLogUpdates);
  transaction_.context.reserve(kLogContext);
}

uint32_t ActivityLog::capacity() const { return static_cast<uint32_t>(slots_.size()); }
uint32_t ActivityLog::hot() const { return active_; }
uint32_t ActivityLog::max_extents_per_write() const { return std::max(1u, capacity() / 4); }
uint64_t ActivityLog::next_number() const { return next_number_; }
void ActivityLog::set_now(uint64_t now_us) { now_us_ = now_us; }

uint64_t ActivityLog::memory_bytes() const {
  return slots_.capacity() * sizeof(Slot) + places_.capacity() * sizeof(Place) +
         empty_.capacity() * sizeof(uint32_t);
}

bool ActivityLog::is_hot(uint32_t extent) const {
  const uint32_t where = find(extent);
  return where < slots_.size() && slots_[where].state == State::kActive;
}

uint32_t ActivityLog::references(uint32_t extent, Hold hold) const {
  const uint32_t where = find(extent);
  if (where >= slots_.size()) return 0;
  return hold == Hold::kLocal ? slots_[where].local : slots_[where].peer;
}

std::vector<uint32_t> ActivityLog::active() const {
  std::vector<uint32_t> extents;
  extents.reserve(active_);
  for (const Slot& slot : slots_) {
    if (slot.state == State::kActive) extents.push_back(slot.extent);
  }
  std::sort(extents.begin(), extents.end());
  return extents;
}

// --- writes ---

ActivityLog::Need ActivityLog::need_of(uint32_t first, uint32_t last) const {
  Need need;
  for (uint32_t extent = first; extent <= last; ++extent) {
    const uint32_t where = find(extent);
    if (where == kQueued) {
      need.hot = false;
    } else if (where == kNoIndex) {
      need.hot = false;
      need.admitted = false;
      ++need.slots;
    } else {
      const Slot& slot = slots_[where];
      if (slot.state != State::kActive) need.hot = false;
      if (!slot.wanted) need.admitted = false;
      if (slot.state == State::kActive && !slot.wanted && !slot.referenced()) ++need.slots;
    }
  }
  return need;
}

// Slots that the next transaction can give away and that nobody was promised.
uint32_t ActivityLog::spare_slots() const {
  const size_t available = empty_.size() + removing_ + idle_.count;
  assert(available >= queue_.size());
  return static_cast<uint32_t>(available - queue_.size());
}

bool ActivityLog::nothing_under_way() const {
  return references_ == 0 && !in_flight_ && queue_.empty();
}

// Whether a write that is not admitted yet has to stand back for the one that starves.
bool ActivityLog::stands_back(const Extents& extents) {
  if (!refused_ || !starving_ || *starving_ == extents) return false;
  if (nothing_under_way()) {
    // The starving one would have got in by now: its owner gave it up.
    starving_.reset();
    return false;
  }
  return true;
}

ActivityLog::Begin ActivityLog::begin(uint32_t first, uint32_t last, bool peer) {
  assert(first <= last && last < extent_count_);
  if (last - first >= max_extents_per_write()) return Begin::kTooMany;
  const Extents extents{first, last};
  Need need = need_of(first, last);
  const bool cold = !need.hot || need.slots > 0;
  if (!need.admitted && (cold || starved_ >= kStarvedAfter) && stands_back(extents)) {
    return Begin::kFull;
  }
  if (need.slots > spare_slots() && nothing_under_way()) {
    // All is kept for pending writes, but none of them can be waiting for anything: they were given
    // up.
    expire_wanted(UINT64_MAX);
    need = need_of(first, last);
  }
  if (need.slots > spare_slots()) {
    if (!refused_ || !starving_) {
      if (starving_ != extents) starved_ = 0;
      starving_ = extents;
      refused_ = true;
    }
    if (starving_ == extents) ++starved_;
    return Begin::kFull;
  }
  if (starving_ == extents) starving_.reset();

  for (uint32_t extent = first; extent <= last; ++extent) {
    const uint32_t where = find(extent);
    if (need.hot) {
      take(slots_[where], where, peer);
    } else if (where == kNoIndex) {
      put(extent, kQueued);
      queue_.push_back(extent);
    } else if (where != kQueued) {
      want(slots_[where], where);
    }
  }
  return need.hot ? Begin::kHot : Begin::kPending;
}

void ActivityLog::begin_retries() { refused_ = false; }

void ActivityLog::take(Slot& slot, uint32_t index, bool peer) {
  stop_retiring(slot);
  if (slot.wanted) {
    slot.wanted = false;
    unlink(wanted_, index);
  } else if (!slot.referenced()) {
    stop_resting(index);
  }
  ++slot.local;
  ++references_;
  if (peer) {
    ++slot.peer;
    ++references_;
  }
  slot.used_us = now_us_;
}

// Keeps a slot in the table for a pending write.
void ActivityLog::want(Slot& slot, uint32_t index) {
  stop_retiring(slot);
  if (slot.wanted) {
    unlink(wanted_, index);
  } else if (slot.state == State::kActive && !slot.referenced()) {
    stop_resting(index);
  }
  slot.wanted = true;
  slot.since = round_;
  slot.used_us = now_us_;
  link(wanted_, index);
}

void ActivityLog::stop_wanting(Slot& slot, uint32_t index) {
  slot.wanted = false;
  unlink(wanted_, index);
  if (slot.state == State::kActive && !slot.referenced()) rest(index);
}

void ActivityLog::stop_retiring(Slot& slot) {
  if (!slot.retiring) return;
  slot.retiring = false;
  --retiring_;
}

void ActivityLog::expire_wanted(uint64_t before_round) {
  while (wanted_.front != kNoIndex && slots_[wanted_.front].since < before_round) {
    stop_wanting(slots_[wanted_.front], wanted_.front);
  }
}

void ActivityLog::hold(uint32_t first, uint32_t last, Hold hold) {
  for (uint32_t extent = first; extent <= last; ++extent) {
    const uint32_t where = find(extent);
    assert(where < slots_.size() && slots_[where].referenced());
    ++(hold == Hold::kLocal ? slots_[where].local : slots_[where].peer);
    ++references_;
  }
}

void ActivityLog::release(uint32_t first, uint32_t last, Hold hold) {
  for (uint32_t extent = first; extent <= last; ++extent) {
    const uint32_t where = find(extent);
    assert(where < slots_.size());
    Slot& slot = slots_[where];
    uint32_t& references = hold == Hold::kLocal ? slot.local : slot.peer;
    assert(references > 0);
    --references;
    --references_;
    if (!slot.referenced() && !slot.wanted) rest(where);
  }
}

uint32_t ActivityLog::retire_idle(uint64_t before_us, uint32_t max) {
  uint32_t marked = 0;
  for (uint32_t index = idle_.front; index != kNoIndex && marked < max;
       index = slots_[index].next) {
    Slot& slot = slots_[index];
    if (slot.retiring || slot.used_us >= before_us) continue;
    slot.retiring = true;
    ++retiring_;
    ++marked;
  }
  return marked;
}

// --- settling ---

// The last reference of an extent went, or nobody waits for it any more.
void ActivityLog::rest(uint32_t index) {
  slots_[index].since = flushes_;
  link(idle_, index);
  if (unsettled_ == kNoIndex) unsettled_ = index;
}

void ActivityLog::stop_resting(uint32_t index) {
  if (is_settled(slots_[index])) --settled_;
  if (unsettled_ == index) unsettled_ = slots_[index].next;
  unlink(idle_, index);
}

// As many as transactions may take while a flush is under way.
uint32_t ActivityLog::settled_reserve() const {
  return std::clamp(capacity() / 2, 1u, 8 * kLogUpdates);
}

bool ActivityLog::settle_wanted() const {
  return evicts_ && unsettled_ != kNoIndex && empty_.size() + settled_ < settled_reserve();
}

uint64_t ActivityLog::settle_begins() {
  evicts_ = false;
  return ++flushes_;
}

void ActivityLog::settled(uint64_t number) {
  assert(number <= flushes_);
  flushed_ = std::max(flushed_, number);
  while (unsettled_ != kNoIndex && is_settled(slots_[unsettled_])) {
    ++settled_;
    unsettled_ = slots_[unsettled_].next;
  }
}

// --- transactions ---

bool ActivityLog::transaction_wanted() const {
  return !in_flight_ && (!queue_.empty() || retiring_ > 0);
}

bool ActivityLog::transaction_in_flight() const { return in_flight_; }

const LogTransaction& ActivityLog::start_transaction() {
  assert(transaction_wanted());
  in_flight_ = true;
  ++round_;
  // A waiter that is tried again after each transaction renews what it wants once a round. Two
  // rounds without it: given up.
  if (round_ > 2) expire_wanted(round_ - 2);
  transaction_.number = next_number_++;
  transaction_.updates.clear();
  transaction_.evicted.clear();
  transaction_.settled = true;
  add_queued();
  remove_retiring();
  std::sort(transaction_.evicted.begin(), transaction_.evicted.end());
  fill_context();
  return transaction_;
}

void ActivityLog::evict(uint32_t index) {
  const Slot& slot = slots_[index];
  transaction_.settled = transaction_.settled && is_settled(slot);
  transaction_.evicted.push_back(slot.extent);
  evicts_ = true;
  stop_resting(index);
  erase(slot.extent);
  --active_;
}

void ActivityLog::add_queued() {
  while (!queue_.empty() && transaction_.updates.size() < kLogUpdates) {
    const uint32_t extent = queue_.front();
    queue_.pop_front();
    uint32_t index;
    if (!empty_.empty()) {
      index = empty_.back();
      empty_.pop_back();
    } else {
      index = idle_.front;
      assert(index != kNoIndex);  // spare_slots() saw to it
      stop_retiring(slots_[index]);
      evict(index);
    }
    Slot& slot = slots_[index];
    slot = Slot{};
    slot.extent = extent;
    slot.state = State::kAdding;
    put(extent, index);
    want(slot, index);
    changing_.push_back(index);
    transaction_.updates.push_back({index, extent});
  }
}

void ActivityLog::remove_retiring() {
  uint32_t next = kNoIndex;
  for (uint32_t index = idle_.front; index != kNoIndex && retiring_ > 0; index = next) {
    if (transaction_.updates.size() == kLogUpdates) return;
    next = slots_[index].next;
    Slot& slot = slots_[index];
    if (!slot.retiring) continue;
    stop_retiring(slot);
    evict(index);
    ++removing_;
    transaction_.updates.push_back({index, kExtentNone});
    slot = Slot{};
    slot.state = State::kRemoving;
    changing_.push_back(index);
  }
}

// Block n carries part n modulo the number of parts, so that any run of blocks as long as that
// carries the whole table.
void ActivityLog::fill_context() {
  const uint32_t parts = (capacity() + kLogContext - 1) / kLogContext;
  transaction_.context_start = static_cast<uint32_t>(transaction_.number % parts) * kLogContext;
  const uint32_t end = std::min(capacity(), transaction_.context_start + kLogContext);
  transaction_.context.clear();
  for (uint32_t index = transaction_.context_start; index < end; ++index) {
    transaction_.context.push_back(slots_[index].extent);
  }
}

void ActivityLog::transaction_done(bool ok) {
  assert(in_flight_);
  in_flight_ = false;
  for (uint32_t index : changing_) {
    Slot& slot = slots_[index];
    if (slot.state == State::kAdding && ok) {
      slot.state = State::kActive;
      ++active_;
      if (!slot.wanted) rest(index);
      continue;
    }
    if (slot.state == State::kAdding) {
      erase(slot.extent);
      if (slot.wanted) unlink(wanted_, index);
    }
    slot = Slot{};
    empty_.push_back(index);
  }
  changing_.clear();
  removing_ = 0;
}

// --- lists and the hash table ---

void ActivityLog::link(List& list, uint32_t index) {
  Slot& slot = slots_[index];
  slot.previous = list.back;
  slot.next = kNoIndex;
  (list.back == kNoIndex ? list.front : slots_[list.back].next) = index;
  list.back = index;
  ++list.count;
}

void ActivityLog::unlink(List& list, uint32_t index) {
  Slot& slot = slots_[index];
  (slot.previous == kNoIndex ? list.front : slots_[slot.previous].next) = slot.next;
  (slot.next == kNoIndex ? list.back : slots_[slot.next].previous) = slot.previous;
  slot.previous = kNoIndex;
  slot.next = kNoIndex;
  --list.count;
}

uint32_t ActivityLog::home(uint32_t extent) const { return (extent * 0x9e3779b1u) >> place_shift_; }

uint32_t ActivityLog::find(uint32_t extent) const {
  const auto mask = static_cast<uint32_t>(places_.size() - 1);
  for (uint32_t at = home(extent);; at = (at + 1) & mask) {
    if (places_[at].extent == extent) return places_[at].where;
    if (places_[at].extent == kExtentNone) return kNoIndex;
  }
}

void ActivityLog::put(uint32_t extent, uint32_t where) {
  const auto mask = static_cast<uint32_t>(places_.size() - 1);
  uint32_t at = home(extent);
  while (places_[at].extent != kExtentNone && places_[at].extent != extent) at = (at + 1) & mask;
  places_[at] = {extent, where};
}

// Moves later entries of the run back into the hole, so that no tombstones pile up.
void ActivityLog::erase(uint32_t extent) {
  const auto mask = static_cast<uint32_t>(places_.size() - 1);
  uint32_t hole = home(extent);
  while (places_[hole].extent != extent) {
    assert(places_[hole].extent != kExtentNone);
    hole = (hole + 1) & mask;
  }
  for (uint32_t at = (hole + 1) & mask; places_[at].extent != kExtentNone; at = (at + 1) & mask) {
    const uint32_t wanted = home(places_[at].extent);
    // May move when the hole lies cyclically between its home and where it is.
    if (((at - wanted) & mask) < ((at - hole) & mask)) continue;
    places_[hole] = places_[at];
    hole = at;
  }
  places_[hole] = Place{};
}

}  // namespace tidemark
