#include "core/frame.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <string>

#include "core/crc32c.h"
#include "random.h"

namespace tidemark {
namespace {

using Bytes = std::array<uint8_t, kFrameHeaderBytes>;

FrameHeader sample() {
  FrameHeader header;
  header.type = FrameType::kData;
  header.flags = kFrameFua | kFrameAckWritten;
  header.incarnation = 0x11223344;
  header.payload_bytes = 4096;
  header.sequence = 0x0102030405060708;
  header.offset = 0x1112131415161800;
  header.length = 4096;
  header.epoch = 0x21222324;
  header.payload_crc = 0x31323334;
  return header;
}

Bytes encoded(const FrameHeader& header) {
  Bytes bytes;
  encode_frame_header(header, bytes);
  return bytes;
}

// Put a value into an encoded header and make its checksum right again.
Bytes forged(Bytes bytes, size_t at, std::initializer_list<uint8_t> values) {
  for (uint8_t value : values) bytes[at++] = value;
  const uint32_t crc = crc32c(0, bytes.data(), 44);
  for (int i = 0; i < 4; ++i) bytes[44 + i] = static_cast<uint8_t>(crc >> (8 * i));
  return bytes;
}

FrameError parsed(const Bytes& bytes) {
  FrameHeader header;
  return parse_frame_header(bytes, &header);
}

}  // namespace

TEST_CASE("frame: the header's bytes are where docs/PROTOCOL.md says") {
  const Bytes bytes = encoded(sample());
  CHECK(std::string(bytes.begin(), bytes.begin() + 4) == "TMF1");
  CHECK(bytes[4] == 16);
  CHECK(bytes[5] == 33);
  CHECK(bytes[6] == 0);
  CHECK(bytes[7] == 0);
  CHECK(bytes[8] == 0x44);
  CHECK(bytes[11] == 0x11);
  CHECK(bytes[13] == 0x10);
  CHECK(bytes[16] == 0x08);
  CHECK(bytes[23] == 0x01);
  CHECK(bytes[24] == 0x00);
  CHECK(bytes[25] == 0x18);
  CHECK(bytes[31] == 0x11);
  CHECK(bytes[33] == 0x10);
  CHECK(bytes[36] == 0x24);
  CHECK(bytes[40] == 0x34);
}

TEST_CASE("frame: a header comes back as it went") {
  FrameHeader header;
  REQUIRE(parse_frame_header(encoded(sample()), &header) == FrameError::kNone);
  CHECK(header.type == FrameType::kData);
  CHECK(header.flags == (kFrameFua | kFrameAckWritten));
  CHECK(header.incarnation == 0x11223344);
  CHECK(header.payload_bytes == 4096);
  CHECK(header.sequence == 0x0102030405060708);
  CHECK(header.offset == 0x1112131415161800);
  CHECK(header.length == 4096);
  CHECK(header.epoch == 0x21222324);
  CHECK(header.payload_crc == 0x31323334);
}

TEST_CASE("frame: every single flipped bit is noticed") {
  const Bytes good = encoded(sample());
  for (size_t bit = 0; bit < kFrameHeaderBytes * 8; ++bit) {
    Bytes bad = good;
    bad[bit / 8] ^= static_cast<uint8_t>(1u << (bit % 8));
    REQUIRE(parsed(bad) == (bit < 32 ? FrameError::kMagic : FrameError::kHeaderCrc));
  }
}

TEST_CASE("frame: what no sender makes is refused although its checksum is right") {
  const Bytes good = encoded(sample());
  CHECK(parsed(forged(good, 4, {0})) == FrameError::kType);
  CHECK(parsed(forged(good, 4, {3})) == FrameError::kType);
  CHECK(parsed(forged(good, 4, {35})) == FrameError::kType);
  CHECK(parsed(forged(good, 5, {64})) == FrameError::kReserved);
  CHECK(parsed(forged(good, 6, {1})) == FrameError::kReserved);
  CHECK(parsed(forged(good, 7, {1})) == FrameError::kReserved);
  SUBCASE("a payload over the bound") {
    CHECK(parsed(forged(good, 12, {0x01, 0x00, 0x10, 0x00})) == FrameError::kLength);
  }
  SUBCASE("data whose payload is not its length") {
    CHECK(parsed(forged(good, 12, {0x00, 0x20, 0x00, 0x00})) == FrameError::kLength);
  }
  SUBCASE("data of no whole sectors, of none, and off a sector") {
    Bytes bad = forged(good, 12, {0x01, 0x02, 0x00, 0x00});
    CHECK(parsed(forged(bad, 32, {0x01, 0x02, 0x00, 0x00})) == FrameError::kLength);
    bad = forged(forged(good, 12, {0, 0, 0, 0}), 40, {0, 0, 0, 0});
    CHECK(parsed(forged(bad, 32, {0, 0, 0, 0})) == FrameError::kLength);
    CHECK(parsed(forged(good, 24, {1})) == FrameError::kLength);
  }
  SUBCASE("a range that wraps around") {
    CHECK(parsed(forged(good, 24, {0, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})) ==
          FrameError::kLength);
  }
  SUBCASE("zeroes with a payload") { CHECK(parsed(forged(good, 4, {17})) == FrameError::kLength); }
  SUBCASE("a checksum of no payload") {
    FrameHeader ping;
    ping.type = FrameType::kPing;
    CHECK(parsed(forged(encoded(ping), 40, {1})) == FrameError::kReserved);
  }
}

TEST_CASE("frame: the largest zero range is taken, one sector more is not") {
  FrameHeader zeroes;
  zeroes.type = FrameType::kZeroes;
  zeroes.length = kZeroLengthMax;
  const Bytes bytes = encoded(zeroes);
  CHECK(parsed(bytes) == FrameError::kNone);
  CHECK(parsed(forged(bytes, 32, {0x00, 0x02, 0x00, 0x40})) == FrameError::kLength);
}

TEST_CASE("frame: random bytes never pass") {
  test::Random random;
  INFO("TIDEMARK_SEED=", test::test_seed());
  for (int round = 0; round < 20000; ++round) {
    Bytes bytes;
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random.next());
    if (random.chance(2)) std::copy_n("TMF1", 4, bytes.begin());
    REQUIRE(parsed(bytes) != FrameError::kNone);
  }
}

TEST_CASE("frame: texts name every type and error") {
  CHECK(std::string(frame_type_text(FrameType::kSyncDoneAck)) == "sync-done-ack");
  CHECK(std::string(frame_type_text(static_cast<FrameType>(99))) == "unknown");
  CHECK(std::string(frame_error_text(FrameError::kHeaderCrc)).find("checksum") !=
        std::string::npos);
}

TEST_CASE("frame: an empty payload's checksum is 0, another's its CRC32C") {
  CHECK(frame_payload_crc({}) == 0);
  const std::string text = "123456789";
  CHECK(frame_payload_crc({reinterpret_cast<const uint8_t*>(text.data()), text.size()}) ==
        0xe3069283u);
}

TEST_CASE("frame: written ranges come back, nonsense does not") {
  const std::array<WrittenRange, 2> ranges = {WrittenRange{7, 3, 0}, WrittenRange{10, 1, -EIO}};
  std::array<uint8_t, 2 * kWrittenRangeBytes> bytes;
  encode_written(ranges, bytes.data());
  CHECK(bytes[0] == 7);
  CHECK(bytes[8] == 3);
  CHECK(bytes[16] == 10);
  std::vector<WrittenRange> out;
  REQUIRE(parse_written(bytes, &out));
  REQUIRE(out.size() == 2);
  CHECK(out[1].first == 10);
  CHECK(out[1].count == 1);
  CHECK(out[1].error == -EIO);

  CHECK_FALSE(parse_written(std::span(bytes).first(31), &out));
  CHECK(out.empty());
  CHECK_FALSE(parse_written({}, &out));
  bytes[8] = 0;
  CHECK_FALSE(parse_written(bytes, &out));
}

}  // namespace tidemark
