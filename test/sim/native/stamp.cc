#include "stamp.h"

#include <cstring>

#include "page.h"

namespace tidemark::sim {
namespace {

constexpr uint64_t kWords = kSectorBytes / sizeof(uint64_t);
constexpr uint64_t kTag = uint64_t{0x5d3a} << 48;  // above the stamp
constexpr uint64_t kStep = 0x9e3779b97f4a7c15u;

uint64_t first_of(uint64_t sector, uint64_t stamp) {
  uint64_t z = (sector + 1) * 0xbf58476d1ce4e5b9u ^ stamp * 0x94d049bb133111ebu;
  return z ^ (z >> 29);
}

}  // namespace

void fill_sector(uint8_t* bytes, uint64_t sector, uint64_t stamp) {
  uint64_t words[kWords];
  words[0] = kTag | stamp;
  words[1] = sector;
  uint64_t word = first_of(sector, stamp);
  for (uint64_t i = 2; i < kWords; ++i, word += kStep) words[i] = word;
  std::memcpy(bytes, words, sizeof words);
}

int64_t read_sector(const uint8_t* bytes, uint64_t sector) {
  uint64_t words[kWords];
  std::memcpy(words, bytes, sizeof words);
  if ((words[0] & ~kStampMax) != kTag) {
    uint64_t any = 0;
    for (const uint64_t word : words) any |= word;
    return any == 0 ? kStampZeroes : kStampForeign;
  }
  const uint64_t stamp = words[0] & kStampMax;
  uint64_t wrong = words[1] ^ sector;
  uint64_t word = first_of(sector, stamp);
  for (uint64_t i = 2; i < kWords; ++i, word += kStep) wrong |= words[i] ^ word;
  return wrong == 0 ? static_cast<int64_t>(stamp) : kStampForeign;
}

uint64_t fingerprint(const uint8_t* bytes, uint64_t length) {
  uint64_t sum = length;
  for (uint64_t at = 0; at + kSectorBytes <= length; at += kSectorBytes) {
    uint64_t words[4];
    std::memcpy(words, bytes + at, sizeof words);
    for (const uint64_t word : words) sum = (sum ^ word) * kStep;
    sum ^= sum >> 32;
  }
  return sum;
}

}  // namespace tidemark::sim
