#include "core/superblock.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <functional>

#include "core/block_image.h"
#include "random.h"

namespace tidemark {
namespace {

using Block = std::array<uint8_t, kBlockSize>;

Superblock sample(Placement placement = Placement::kEnd) {
  Superblock sb;
  sb.serial = 42;
  sb.metadata_id.bytes[0] = 0xaa;
  sb.metadata_id.bytes[15] = 0xab;
  sb.node_id.bytes[3] = 0xbb;
  sb.flags = kNodeConsistent | kNodeAttached;
  sb.placement = placement;
  sb.device_bytes = (uint64_t{1} << 30) + 1536;
  const uint64_t offset = placement == Placement::kOffset ? uint64_t{512} << 20 : 0;
  Split split;
  const auto error = split_device(sb.device_bytes, 512, placement, offset, Geometry{}, &split);
  REQUIRE_MESSAGE(!error, *error);
  sb.data_offset = split.data_offset;
  sb.meta_offset = split.meta_offset;
  sb.geometry = split.layout.geometry;
  sb.current = 0x1122334455667788;
  for (uint32_t i = 0; i < kHistory; ++i) sb.history[i] = 100 + i;
  sb.slots[0].flags = kSlotInUse | kSlotPeerPrimary;
  sb.slots[0].node_id.bytes[0] = 1;
  sb.slots[0].bitmap_generation = 7;
  sb.slots[0].last_generation = 8;
  std::strcpy(sb.slots[0].name,
              "b\xc3\xbc"
              "ro");
  sb.slots[7].flags = kSlotInUse | kSlotAllDirty;
  sb.slots[7].node_id.bytes[0] = 2;
  sb.slots[3].flags = kSlotAllDirty;
  sb.node_slot = 3;
  sb.log_start_number = 5;
  sb.created_unix_s = 1700000000;
  std::strcpy(sb.name, "volume \xe2\x82\xac");
  return sb;
}

Block encoded(const Superblock& sb, uint32_t copy = 0) {
  Block block;
  encode_superblock(sb, copy, block);
  return block;
}

void seal(Block& block) {
  const uint32_t crc = crc32c_without_field(block, 12);
  std::memcpy(block.data() + 12, &crc, 4);
}

SuperblockParse forged(size_t at, std::initializer_list<uint8_t> values) {
  Block block = encoded(sample());
  for (uint8_t value : values) block[at++] = value;
  seal(block);
  return parse_superblock(block);
}

}  // namespace

TEST_CASE("superblock: comes back as it went, for every placement and copy") {
  for (Placement placement :
       {Placement::kEnd, Placement::kStart, Placement::kOffset, Placement::kExternal}) {
    for (uint32_t copy : {0u, 1u}) {
      const Superblock sb = sample(placement);
      const SuperblockParse parse = parse_superblock(encoded(sb, copy));
      REQUIRE_MESSAGE(parse.error == SuperblockError::kNone, parse.message);
      CHECK(parse.copy == copy);
      const Superblock& got = parse.superblock;
      CHECK(got.serial == 42);
      CHECK(got.metadata_id == sb.metadata_id);
      CHECK(got.node_id == sb.node_id);
      CHECK(got.flags == sb.flags);
      CHECK(got.placement == placement);
      CHECK(got.block_bytes == 512);
      CHECK(got.device_bytes == sb.device_bytes);
      CHECK(got.data_offset == sb.data_offset);
      CHECK(got.meta_offset == sb.meta_offset);
      CHECK(got.geometry.volume_bytes == sb.geometry.volume_bytes);
      CHECK(got.geometry.chunk_bytes == sb.geometry.chunk_bytes);
      CHECK(got.geometry.extent_bytes == sb.geometry.extent_bytes);
      CHECK(got.geometry.log_extents == sb.geometry.log_extents);
      CHECK(got.geometry.peer_slots == sb.geometry.peer_slots);
      CHECK(got.geometry.node_slots == sb.geometry.node_slots);
      CHECK(got.current == sb.current);
      CHECK(got.history == sb.history);
      CHECK(got.slots[0].node_id == sb.slots[0].node_id);
      CHECK(got.slots[0].flags == sb.slots[0].flags);
      CHECK(got.slots[0].bitmap_generation == 7);
      CHECK(got.slots[0].last_generation == 8);
      CHECK(std::string(got.slots[0].name) == sb.slots[0].name);
      CHECK(got.slots[7].flags == sb.slots[7].flags);
      CHECK(got.node_slot == 3);
      CHECK(got.log_start_number == 5);
      CHECK(got.created_unix_s == 1700000000);
      CHECK(std::string(got.name) == sb.name);
      // Encoding what was read gives the same bytes.
      CHECK(encoded(got, copy) == encoded(sb, copy));
    }
  }
}

TEST_CASE("superblock: every flipped bit is noticed") {
  const Block good = encoded(sample());
  for (size_t bit = 0; bit < kBlockSize * 8; ++bit) {
    Block bad = good;
    bad[bit / 8] ^= static_cast<uint8_t>(1u << (bit % 8));
    const SuperblockError error = parse_superblock(bad).error;
    if (bit < 64) {
      REQUIRE(error == SuperblockError::kForeign);
    } else if (bit < 96) {
      REQUIRE((error == SuperblockError::kVersionNewer || error == SuperblockError::kVersionOlder));
    } else {
      REQUIRE(error == SuperblockError::kChecksum);
    }
  }
}

TEST_CASE("superblock: blank, foreign, newer and older are told apart by name") {
  Block block{};
  CHECK(parse_superblock(block).error == SuperblockError::kBlank);
  block[4095] = 1;
  CHECK(parse_superblock(block).error == SuperblockError::kForeign);
  const SuperblockParse newer = forged(8, {2, 0, 0, 0});
  CHECK(newer.error == SuperblockError::kVersionNewer);
  CHECK(newer.message.find("version 2, newer than the 1") != std::string::npos);
  CHECK(forged(8, {0, 0, 0, 0}).error == SuperblockError::kVersionOlder);
}

TEST_CASE("superblock: fields that cannot be right are refused although the checksum is") {
  struct Case {
    size_t at;
    std::initializer_list<uint8_t> values;
    const char* message;
  };
  const Case cases[] = {
      {24, {2}, "copy 2"},
      {28, {0, 1}, "flags"},
      {32, {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, "metadata has no identity"},
      {48, {0, 0, 0, 0}, "node has no identity"},
      {64, {4}, "placement is 4"},
      {65, {1}, "placement is 256"},
      {64, {1}, "begin"},
      {68, {1}, "logical block"},
      {72, {0, 0x16}, "metadata does not end"},
      {80, {1}, "block"},
      {80, {0, 2}, "device"},
      {88, {0, 0, 0, 0}, "metadata"},
      {96, {1}, "multiple of 512"},
      {104, {1}, "chunk_bytes"},
      {108, {1}, "extent_bytes"},
      {112, {1, 0}, "log_extents"},
      {116, {0}, "peer_slots"},
      {116, {7}, "end with the device's last whole block"},
      {120, {0}, "node_slots"},
      {124, {4}, "log slot is 4"},
      {128, {0}, "transaction 0"},
      {144, {0, 0, 0, 0, 0, 0, 0, 0}, "generation is 0"},
      {216, {0xff}, "name"},
      {216, {'a', 0, 'b'}, "name"},
      {216, {0xc0, 0x80}, "name"},
      {216, {0xed, 0xa0, 0x80}, "name"},
      {216, {0x1b}, "name"},
      {280, {1}, "keeps zero"},
      {511, {1}, "keeps zero"},
      {512, {0}, "slot 0 is in use but names no node"},
      {512, {0, 0, 0, 0xbb}, "itself"},
      {512, {2}, "same node as peer slot 0"},
      {512 + 16, {0x81}, "flags 0x81"},
      {512 + 20, {1}, "keeps zero"},
      {512 + 72, {1}, "keeps zero"},
      {512 + 128, {9}, "slot 1 is not in use"},
      {512 + 128 + 16, {4}, "slot 1 is not in use"},
      {4095, {1}, "keeps zero"},
  };
  for (const Case& c : cases) {
    const SuperblockParse parse = forged(c.at, c.values);
    INFO("offset ", c.at, ": ", parse.message);
    CHECK(parse.error == SuperblockError::kGeometry);
    CHECK(parse.message.find(c.message) != std::string::npos);
  }
}

TEST_CASE("superblock: a slot beyond those that exist is refused") {
  Superblock sb = sample(Placement::kExternal);
  sb.geometry.peer_slots = 7;
  CHECK(check_superblock(sb)->find("only 7") != std::string::npos);
  sb.slots[7] = PeerSlot{};
  CHECK_FALSE(check_superblock(sb));
}

TEST_CASE("superblock: a name that fills its field without NUL is refused") {
  Superblock sb = sample();
  std::memset(sb.name, 'x', sizeof sb.name);
  CHECK(check_superblock(sb));
  sb.name[63] = 0;
  CHECK_FALSE(check_superblock(sb));
}

TEST_CASE("superblock: history keeps the newest eight, without none, just created and repeats") {
  Superblock sb;
  sb.push_history(kGenerationNone);
  sb.push_history(kGenerationJustCreated);
  CHECK(sb.history[0] == 0);
  for (uint64_t generation = 10; generation < 20; ++generation) {
    sb.push_history(generation);
    sb.push_history(generation);
  }
  for (uint64_t i = 0; i < kHistory; ++i) CHECK(sb.history[i] == 19 - i);
}

TEST_CASE("superblock: random damage under a right checksum never crashes the parser") {
  test::Random random;
  INFO("TIDEMARK_SEED=", test::test_seed());
  for (int round = 0; round < 5000; ++round) {
    Block block = encoded(sample());
    for (uint64_t i = random.between(1, 8); i > 0; --i) {
      block[16 + random.below(300)] = static_cast<uint8_t>(random.next());
    }
    seal(block);
    const SuperblockParse parse = parse_superblock(block);
    if (parse.error == SuperblockError::kNone) {
      Block again;
      encode_superblock(parse.superblock, parse.copy, again);
      REQUIRE(again == block);
    }
  }
}

}  // namespace tidemark
