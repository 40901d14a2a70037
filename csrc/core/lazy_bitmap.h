// A large, mostly empty bitmap under a 64-ary summary. The dirty map's bits and its sets of map
// blocks are such bitmaps.
//
// Invariants
// - level 0 has the bits, in words of 64; bit i of level k + 1 is set exactly when word i of level
// k is not zero; the
//   top level is one word. So the next set bit costs a few words a level, however far away it is.
// - Bits past size() are never set. count() is exactly the number of set bits.
// - Memory is reserved at once and gets pages only where something was set; the summaries of a map
// of 2^38 bits too.
// - Looking for bits, counting and clearing skip what the summary says is empty: they touch no new
// pages.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace tidemark {

class LazyBitmap {
 public:
  static constexpr uint64_t kNone = UINT64_MAX;

  // size > 0. Throws std::bad_alloc when the address space cannot be reserved.
  explicit LazyBitmap(uint64_t size);
  ~LazyBitmap();
  LazyBitmap(const LazyBitmap&) = delete;
  LazyBitmap& operator=(const LazyBitmap&) = delete;

  uint64_t size() const { return size_; }
  uint64_t count() const { return count_; }
  uint64_t memory_bytes() const { return reserved_bytes_; }  // if every page were touched

  bool test(uint64_t bit) const { return ((levels_[0].words[bit / 64] >> (bit % 64)) & 1) != 0; }
  bool set(uint64_t bit) { return set_range(bit, 1) != 0; }
  bool clear(uint64_t bit) { return clear_range(bit, 1) != 0; }

  // [first, first + count) has to lie within size(). Return how many bits changed.
  uint64_t set_range(uint64_t first, uint64_t count);
  uint64_t clear_range(uint64_t first, uint64_t count);
  uint64_t count_range(uint64_t first, uint64_t count) const;
  void clear_all();  // gives the pages back

  uint64_t word(uint64_t index) const { return levels_[0].words[index]; }
  uint64_t word_count() const { return levels_[0].count; }
  // Replaces whole words, beginning with word `first`; bits past size() are dropped, and so are
  // words past word_count(). Empty ones that stay empty touch no page.
  void store_words(uint64_t first, std::span<const uint64_t> values);

  // The first set bit at or after `from`, or kNone. `from` may be anything.
  uint64_t next_set(uint64_t from) const;
  // The first clear bit at or after `from` and before `limit`, or `limit` (<= size()).
  uint64_t next_clear(uint64_t from, uint64_t limit) const;

 private:
  struct Level {
    uint64_t* words = nullptr;
    uint64_t count = 0;  // words
  };

  uint64_t next_in_level(size_t level, uint64_t from) const;
  bool word_empty(uint64_t index) const;
  uint64_t set_words(uint64_t first, uint64_t end);
  uint64_t set_groups(uint64_t first, uint64_t end);
  void word_filled(uint64_t index);   // word `index` of level 0 stopped being zero
  void word_emptied(uint64_t index);  // ... became zero

  uint64_t size_;
  uint64_t count_ = 0;
  uint64_t reserved_bytes_ = 0;
  void* memory_ = nullptr;
  std::vector<Level> levels_;
};

}  // namespace tidemark
