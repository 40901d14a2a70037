// Seeded randomness for the unit tests. The seed comes from TIDEMARK_SEED, or is fixed, and a test
// that uses it prints it with a failure (INFO), so that the failure can be had again.
#pragma once

#include <cstdint>
#include <cstdlib>

namespace tidemark::test {

inline uint64_t test_seed() {
  const char* text = std::getenv("TIDEMARK_SEED");
  return text != nullptr ? std::strtoull(text, nullptr, 0) : 20261121u;
}

// splitmix64: small, and good enough for picking test cases.
class Random {
 public:
  explicit Random(uint64_t seed = test_seed()) : state_(seed) {}

  uint64_t next() {
    state_ += 0x9e3779b97f4a7c15u;
    uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  // 0 <= result < bound, bound > 0.
  uint64_t below(uint64_t bound) { return next() % bound; }
  // least <= result <= most.
  uint64_t between(uint64_t least, uint64_t most) { return least + below(most - least + 1); }
  bool chance(uint64_t one_in) { return below(one_in) == 0; }

 private:
  uint64_t state_;
};

}  // namespace tidemark::test
