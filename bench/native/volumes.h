// The volumes that the benchmarks are about, and their marks.
#pragma once

#include <cstdint>
#include <vector>

namespace tidemark {

inline constexpr uint64_t kTiB = uint64_t{1} << 40;
inline constexpr uint64_t kPiB = uint64_t{1} << 50;

// Numbers below `limit`, the same in every run: splitmix64.
class Scatter {
 public:
  explicit Scatter(uint64_t limit) : limit_(limit) {}
  uint64_t next() {
    uint64_t word = state_ += 0x9e3779b97f4a7c15u;
    word = (word ^ (word >> 30)) * 0xbf58476d1ce4e5b9u;
    word = (word ^ (word >> 27)) * 0x94d049bb133111ebu;
    return (word ^ (word >> 31)) % limit_;
  }
  std::vector<uint64_t> take(size_t count) {
    std::vector<uint64_t> numbers(count);
    for (uint64_t& number : numbers) number = next();
    return numbers;
  }

 private:
  uint64_t limit_;
  uint64_t state_ = 1;
};

}  // namespace tidemark
