// A set of 4 KiB pages of a volume.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <vector>

namespace tidemark::sim {

class Bits {
 public:
  Bits() = default;
  explicit Bits(uint64_t size) : size_(size), words_((size + 63) / 64, 0) {}

  uint64_t size() const { return size_; }
  bool test(uint64_t bit) const { return (words_[bit / 64] >> (bit % 64) & 1) != 0; }
  void set(uint64_t bit) { words_[bit / 64] |= uint64_t{1} << (bit % 64); }
  void clear(uint64_t bit) { words_[bit / 64] &= ~(uint64_t{1} << (bit % 64)); }
  // What lies past the end is cut off.
  void set_range(uint64_t first, uint64_t count) { each_word(first, count, true); }
  void clear_range(uint64_t first, uint64_t count) { each_word(first, count, false); }
  void set_all() { set_range(0, size_); }
  void clear_all() { std::fill(words_.begin(), words_.end(), 0); }
  bool none() const {
    return std::all_of(words_.begin(), words_.end(), [](uint64_t word) { return word == 0; });
  }
  void add(const Bits& other) {
    for (size_t i = 0; i < words_.size(); ++i) words_[i] |= other.words_[i];
  }
  void remove(const Bits& other) {
    for (size_t i = 0; i < words_.size(); ++i) words_[i] &= ~other.words_[i];
  }
  // 64 of them at once; `index` counts such words. Bits past the end are cut off.
  void add_word(uint64_t index, uint64_t word) {
    if (index >= words_.size()) return;
    if (index + 1 == words_.size() && size_ % 64 != 0) word &= (uint64_t{1} << (size_ % 64)) - 1;
    words_[index] |= word;
  }
  template <typename Each>
  void each(Each each_set) const {
    for (size_t i = 0; i < words_.size(); ++i) {
      for (uint64_t word = words_[i]; word != 0; word &= word - 1)
        each_set(i * 64 + static_cast<uint64_t>(std::countr_zero(word)));
    }
  }

 private:
  void each_word(uint64_t first, uint64_t count, bool on) {
    const uint64_t end = first < size_ ? first + std::min(count, size_ - first) : first;
    while (first < end) {
      const uint64_t part = std::min(end - first, 64 - first % 64);
      const uint64_t mask = (part == 64 ? ~uint64_t{0} : (uint64_t{1} << part) - 1) << (first % 64);
      on ? words_[first / 64] |= mask : words_[first / 64] &= ~mask;
      first += part;
    }
  }

  uint64_t size_ = 0;
  std::vector<uint64_t> words_;
};

}  // namespace tidemark::sim
