#include "core/crc32c.h"

#include <doctest/doctest.h>

#include <cstring>
#include <vector>

#include "random.h"

namespace tidemark {

TEST_CASE("crc32c: known answers (RFC 3720, B.4)") {
  CHECK(crc32c(0, "123456789", 9) == 0xe3069283u);
  CHECK(crc32c(0, "", 0) == 0u);
  uint8_t bytes[32] = {};
  CHECK(crc32c(0, bytes, sizeof bytes) == 0x8a9136aau);
  std::memset(bytes, 0xff, sizeof bytes);
  CHECK(crc32c(0, bytes, sizeof bytes) == 0x62a8ab43u);
  for (uint8_t i = 0; i < 32; ++i) bytes[i] = i;
  CHECK(crc32c(0, bytes, sizeof bytes) == 0x46dd794eu);
  for (uint8_t i = 0; i < 32; ++i) bytes[i] = static_cast<uint8_t>(31 - i);
  CHECK(crc32c(0, bytes, sizeof bytes) == 0x113fdb5cu);
  CHECK(crc32c_portable(0, "123456789", 9) == 0xe3069283u);
}

namespace {

// Bit by bit, as the definition says.
uint32_t by_definition(uint32_t crc, const uint8_t* data, size_t length) {
  crc = ~crc;
  for (size_t i = 0; i < length; ++i) {
    crc ^= data[i];
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82f63b78u : 0);
  }
  return ~crc;
}

}  // namespace

TEST_CASE("crc32c: the portable way is the definition at every length up to some strides") {
  test::Random random;
  INFO("TIDEMARK_SEED=", test::test_seed());
  std::vector<uint8_t> bytes(1000);
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random.next());
  for (size_t length = 0; length <= bytes.size(); ++length) {
    const auto crc = static_cast<uint32_t>(random.next());
    const uint32_t expected = by_definition(crc, bytes.data(), length);
    REQUIRE(crc32c_portable(crc, bytes.data(), length) == expected);
    REQUIRE(crc32c(crc, bytes.data(), length) == expected);
  }
}

TEST_CASE("crc32c: the portable way finds every bit that turns in a block") {
  std::vector<uint8_t> bytes(4096);
  const uint32_t whole = crc32c_portable(0, bytes.data(), bytes.size());
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    bytes[bit / 8] ^= static_cast<uint8_t>(1u << bit % 8);
    REQUIRE(crc32c_portable(0, bytes.data(), bytes.size()) != whole);
    bytes[bit / 8] ^= static_cast<uint8_t>(1u << bit % 8);
  }
}

TEST_CASE("crc32c: the CPU and the portable way agree at any length, alignment and split") {
  test::Random random;
  INFO("TIDEMARK_SEED=", test::test_seed());
  std::vector<uint8_t> bytes(20000);
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random.next());
  for (int round = 0; round < 400; ++round) {
    const size_t start = random.below(64);
    const size_t length = random.below(bytes.size() - start);
    const size_t split = random.below(length + 1);
    const uint32_t whole = crc32c(0, bytes.data() + start, length);
    REQUIRE(whole == crc32c_portable(0, bytes.data() + start, length));
    const uint32_t part = crc32c(0, bytes.data() + start, split);
    REQUIRE(whole == crc32c(part, bytes.data() + start + split, length - split));
  }
}

}  // namespace tidemark
