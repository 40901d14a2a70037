#include "core/lazy_bitmap.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cassert>
#include <new>

namespace tidemark {
namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kAllOnes = ~uint64_t{0};
constexpr uint64_t kGroupBits = 64 * 64;  // of the words under one word of the first summary

// The bits of word `index` that lie in [first, end).
uint64_t mask_of(uint64_t index, uint64_t first, uint64_t end) {
  const uint64_t begin = index * 64;
  uint64_t mask = kAllOnes;
  if (first > begin) mask &= kAllOnes << (first - begin);
  if (end - begin < 64) mask &= kAllOnes >> (64 - (end - begin));
  return mask;
}

}  // namespace

LazyBitmap::LazyBitmap(uint64_t size) : size_(size) {
  assert(size > 0 && size <= uint64_t{1} << 50);
  uint64_t words = size;
  do {
    words = (words + 63) / 64;
    levels_.push_back({nullptr, words});
    reserved_bytes_ += (words * 8 + kPage - 1) / kPage * kPage;
  } while (words > 1);
  memory_ = mmap(nullptr, reserved_bytes_, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory_ == MAP_FAILED) throw std::bad_alloc();
  // Scattered marks shall cost 4 KiB each and not 2 MiB; a kernel without huge pages answers
  // EINVAL.
  (void)madvise(memory_, reserved_bytes_, MADV_NOHUGEPAGE);
  auto* next = static_cast<uint8_t*>(memory_);
  for (Level& level : levels_) {
    level.words = reinterpret_cast<uint64_t*>(next);
    next += (level.count * 8 + kPage - 1) / kPage * kPage;
  }
}

LazyBitmap::~LazyBitmap() { munmap(memory_, reserved_bytes_); }

void LazyBitmap::word_filled(uint64_t index) {
  for (size_t level = 1; level < levels_.size(); ++level) {
    uint64_t& word = levels_[level].words[index / 64];
    const uint64_t before = word;
    word |= uint64_t{1} << (index % 64);
    if (before != 0) return;
    index /= 64;
  }
}

void LazyBitmap::word_emptied(uint64_t index) {
  for (size_t level = 1; level < levels_.size(); ++level) {
    uint64_t& word = levels_[level].words[index / 64];
    word &= ~(uint64_t{1} << (index % 64));
    if (word != 0) return;
    index /= 64;
  }
}

// Asks the summary: reading a page that was never touched costs a fault, and writing it then a
// second one.
bool LazyBitmap::word_empty(uint64_t index) const {
  if (levels_.size() == 1) return levels_[0].words[0] == 0;
  return ((levels_[1].words[index / 64] >> (index % 64)) & 1) == 0;
}

uint64_t LazyBitmap::set_words(uint64_t first, uint64_t end) {
  uint64_t changed = 0;
  for (uint64_t index = first / 64; index <= (end - 1) / 64; ++index) {
    uint64_t& word = levels_[0].words[index];
    const uint64_t added = mask_of(index, first, end) & ~word;
    if (added == 0) continue;
    if (word == 0) word_filled(index);
    word |= added;
    changed += static_cast<uint64_t>(std::popcount(added));
  }
  return changed;
}

// A long range is likely to lie in pages that were never touched: what the summary says is empty is
// written without a look at it.
uint64_t LazyBitmap::set_groups(uint64_t first, uint64_t end) {
  uint64_t changed = 0;
  while (first < end) {
    const uint64_t group = first / kGroupBits;
    const uint64_t stop = std::min(end, (group + 1) * kGroupBits);
    uint64_t& summary = levels_[1].words[group];
    if (summary != 0) {
      changed += set_words(first, stop);
    } else if (stop - first < kGroupBits) {
      for (uint64_t index = first / 64; index <= (stop - 1) / 64; ++index) {
        word_filled(index);
        levels_[0].words[index] = mask_of(index, first, stop);
      }
      changed += stop - first;
    } else {
      std::fill_n(levels_[0].words + group * 64, 64, kAllOnes);
      word_filled(group * 64);
      summary = kAllOnes;
      changed += kGroupBits;
    }
    first = stop;
  }
  return changed;
}

uint64_t LazyBitmap::set_range(uint64_t first, uint64_t count) {
  assert(first <= size_ && count <= size_ - first);
  if (count == 0) return 0;
  const uint64_t end = first + count;
  const uint64_t changed = count < kGroupBits ? set_words(first, end) : set_groups(first, end);
  count_ += changed;
  return changed;
}

uint64_t LazyBitmap::clear_range(uint64_t first, uint64_t count) {
  assert(first <= size_ && count <= size_ - first);
  if (count == 0) return 0;
  const uint64_t end = first + count;
  uint64_t changed = 0;
  for (uint64_t bit = next_set(first); bit < end; bit = next_set((bit / 64 + 1) * 64)) {
    const uint64_t index = bit / 64;
    uint64_t& word = levels_[0].words[index];
    const uint64_t removed = mask_of(index, first, end) & word;
    word &= ~removed;
    if (word == 0) word_emptied(index);
    changed += static_cast<uint64_t>(std::popcount(removed));
  }
  count_ -= changed;
  return changed;
}

uint64_t LazyBitmap::count_range(uint64_t first, uint64_t count) const {
  assert(first <= size_ && count <= size_ - first);
  if (count == 0 || count_ == 0) return 0;
  if (count == size_) return count_;
  const uint64_t end = first + count;
  uint64_t found = 0;
  for (uint64_t bit = next_set(first); bit < end; bit = next_set((bit / 64 + 1) * 64)) {
    found += static_cast<uint64_t>(std::popcount(word(bit / 64) & mask_of(bit / 64, first, end)));
  }
  return found;
}

void LazyBitmap::clear_all() {
  if (count_ == 0) return;
  // On private anonymous memory the pages read as zero afterwards.
  const int error = madvise(memory_, reserved_bytes_, MADV_DONTNEED);
  assert(error == 0);
  (void)error;
  count_ = 0;
}

void LazyBitmap::store_words(uint64_t first, std::span<const uint64_t> values) {
  assert(first <= levels_[0].count);
  const uint64_t end = std::min(levels_[0].count, first + values.size());
  for (uint64_t index = first; index < end; ++index) {
    uint64_t value = values[index - first];
    const bool empty = word_empty(index);
    if (empty && value == 0) continue;
    if (index == levels_[0].count - 1) value &= mask_of(index, 0, size_);
    uint64_t& word = levels_[0].words[index];
    const uint64_t before = empty ? 0 : word;
    if (before == value) continue;
    if (empty) word_filled(index);
    word = value;
    if (value == 0) word_emptied(index);
    count_ += static_cast<uint64_t>(std::popcount(value));
    count_ -= static_cast<uint64_t>(std::popcount(before));
  }
}

// The first set bit of a level at or after `from`: look in its own word, else let the level above
// say which word of this one is the next that has any.
uint64_t LazyBitmap::next_in_level(size_t level, uint64_t from) const {
  uint64_t index = from / 64;
  if (index >= levels_[level].count) return kNone;
  const uint64_t here = levels_[level].words[index] & (kAllOnes << (from % 64));
  if (here != 0) return index * 64 + static_cast<uint64_t>(std::countr_zero(here));
  if (level + 1 == levels_.size()) return kNone;
  index = next_in_level(level + 1, index + 1);
  if (index == kNone) return kNone;
  return index * 64 + static_cast<uint64_t>(std::countr_zero(levels_[level].words[index]));
}

uint64_t LazyBitmap::next_set(uint64_t from) const {
  if (from >= size_ || count_ == 0) return kNone;
  return next_in_level(0, from);
}

uint64_t LazyBitmap::next_clear(uint64_t from, uint64_t limit) const {
  assert(limit <= size_);
  while (from < limit) {
    const uint64_t clear = ~word(from / 64) & (kAllOnes << (from % 64));
    if (clear != 0) {
      return std::min(limit, from / 64 * 64 + static_cast<uint64_t>(std::countr_zero(clear)));
    }
    from = (from / 64 + 1) * 64;
  }
  return limit;
}

}  // namespace tidemark
