// The simulator's own randomness: everything that happens follows from one seed.
#pragma once

#include <cstdint>

namespace tidemark::sim {

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  // splitmix64
  uint64_t next() {
    state_ += 0x9e3779b97f4a7c15u;
    uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  // 0 <= result < bound, bound > 0.
  uint64_t below(uint64_t bound) { return next() % bound; }
  // 0 = never.
  bool one_in(uint64_t n) { return n != 0 && below(n) == 0; }

 private:
  uint64_t state_;
};

}  // namespace tidemark::sim
