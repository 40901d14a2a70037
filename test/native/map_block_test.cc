#include "core/map_block.h"

#include <doctest/doctest.h>

#include <array>
#include <cstring>

#include "core/block_image.h"
#include "random.h"

namespace tidemark {
namespace {

using Block = std::array<uint8_t, kBlockSize>;
using Words = std::array<uint64_t, kMapBlockWords>;

constexpr MapBlockName kName{0x1122334455667788, 3, 5, 4096};

Words random_words() {
  test::Random random;
  Words words;
  for (uint64_t& word : words) word = random.next();
  return words;
}

Block encoded(const Words& words) {
  Block block;
  encode_map_block(kName, words, block);
  return block;
}

}  // namespace

TEST_CASE("map block: words come back, and lie where docs/METADATA.md says") {
  const Words words = random_words();
  const Block block = encoded(words);
  CHECK(std::memcmp(block.data(), "TIDEMAP1", 8) == 0);
  CHECK(std::memcmp(block.data() + 64, words.data(), sizeof words) == 0);
  uint64_t first_chunk;
  std::memcpy(&first_chunk, block.data() + 32, 8);
  CHECK(first_chunk == 5 * 32256);
  Words got{};
  REQUIRE(parse_map_block(kName, block, got) == MapBlockStatus::kGood);
  CHECK(got == words);
}

TEST_CASE("map block: zeroes were never written, anything else off is untrusted") {
  Words got{};
  Block block{};
  CHECK(parse_map_block(kName, block, got) == MapBlockStatus::kNeverWritten);
  block[4095] = 1;
  CHECK(parse_map_block(kName, block, got) == MapBlockStatus::kUntrusted);
  const Block good = encoded(random_words());
  for (size_t bit = 0; bit < kBlockSize * 8; ++bit) {
    block = good;
    block[bit / 8] ^= static_cast<uint8_t>(1u << (bit % 8));
    REQUIRE(parse_map_block(kName, block, got) == MapBlockStatus::kUntrusted);
  }
  for (uint64_t word : got) REQUIRE(word == 0);
}

TEST_CASE("map block: a block of another volume, slot, place or chunk size is untrusted") {
  const Block block = encoded(random_words());
  Words got{};
  for (int field = 0; field < 4; ++field) {
    MapBlockName other = kName;
    if (field == 0) other.metadata_id ^= 1;
    if (field == 1) other.slot = 2;
    if (field == 2) other.index = 6;
    if (field == 3) other.chunk_bytes = 8192;
    CHECK(parse_map_block(other, block, got) == MapBlockStatus::kUntrusted);
  }
}

}  // namespace tidemark
