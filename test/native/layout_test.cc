#include "core/layout.h"

#include <doctest/doctest.h>

#include "core/activity_log.h"
#include "core/dirty_map.h"
#include "random.h"

namespace tidemark {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kGiB = uint64_t{1} << 30;

Geometry sized(uint64_t volume_bytes) {
  Geometry geometry;
  geometry.volume_bytes = volume_bytes;
  return geometry;
}

bool mentions(const std::optional<std::string>& error, const char* text) {
  return error && error->find(text) != std::string::npos;
}

}  // namespace

TEST_CASE("layout: geometry out of range is refused with value and range") {
  CHECK_FALSE(check_geometry(sized(kMiB)));
  CHECK_FALSE(check_geometry(sized(kMiB + 512)));
  CHECK_FALSE(check_geometry(sized(uint64_t{1} << 50)));
  CHECK(mentions(check_geometry(sized(kMiB - 512)), "1048064"));
  CHECK(mentions(check_geometry(sized(kMiB - 512)), "(1048576..1125899906842624)"));
  CHECK(check_geometry(sized((uint64_t{1} << 50) + 512)));
  CHECK(mentions(check_geometry(sized(kMiB + 1)), "multiple of 512"));
  Geometry geometry = sized(kGiB);
  SUBCASE("chunk") {
    for (uint32_t bad : {0u, 2048u, 4097u, 12288u, 128u << 20}) {
      geometry.chunk_bytes = bad;
      CHECK(mentions(check_geometry(geometry), "chunk_bytes"));
    }
  }
  SUBCASE("extent") {
    for (uint32_t bad : {0u, 512u << 10, 3u << 20, 2u << 30}) {
      geometry.extent_bytes = bad;
      CHECK(mentions(check_geometry(geometry), "extent_bytes"));
    }
    geometry.extent_bytes = 1u << 20;
    geometry.chunk_bytes = 2u << 20;
    CHECK(mentions(check_geometry(geometry), "at least one chunk"));
  }
  SUBCASE("log") {
    for (uint32_t bad : {0u, 6u, 65535u}) {
      geometry.log_extents = bad;
      CHECK(mentions(check_geometry(geometry), "(7..65534)"));
    }
  }
  SUBCASE("slots") {
    geometry.peer_slots = 9;
    CHECK(mentions(check_geometry(geometry), "(1..8)"));
    geometry.peer_slots = 1;
    geometry.node_slots = 0;
    CHECK(mentions(check_geometry(geometry), "(1..64)"));
  }
}

TEST_CASE("layout: areas follow each other without gap or overlap") {
  test::Random random;
  INFO("TIDEMARK_SEED=", test::test_seed());
  for (int round = 0; round < 2000; ++round) {
    Geometry geometry =
        sized(random.between(kMiB, uint64_t{1} << random.between(20, 50)) / 512 * 512);
    geometry.chunk_bytes = 4096u << random.below(15);
    geometry.extent_bytes =
        std::max(geometry.chunk_bytes, (1u << 20) << static_cast<uint32_t>(random.below(11)));
    geometry.log_extents = static_cast<uint32_t>(random.between(kExtentsMin, kExtentsMax));
    geometry.peer_slots = static_cast<uint32_t>(random.between(1, kMaxPeerSlots));
    geometry.node_slots = static_cast<uint32_t>(random.between(1, kNodeSlotsMax));
    REQUIRE_FALSE(check_geometry(geometry));
    const Layout layout = make_layout(geometry);
    uint64_t next = 0;
    REQUIRE(layout.superblock_block(0) == next++);
    for (uint32_t node = 0; node < geometry.node_slots; ++node) {
      REQUIRE(layout.log_block(node, 0) == next);
      REQUIRE(layout.log_block(node, layout.log_ring_blocks * 7 + 3) == next + 3);
      next += layout.log_ring_blocks;
    }
    for (uint32_t peer = 0; peer < geometry.peer_slots; ++peer) {
      REQUIRE(layout.map_block(peer, 0) == next);
      next += layout.map_slot_blocks;
      REQUIRE(layout.map_block(peer, layout.map_slot_blocks - 1) == next - 1);
    }
    REQUIRE(layout.superblock_block(1) == next);
    REQUIRE(layout.bytes() == (next + 1) * kBlockSize);
    // The map covers the volume and wastes less than one block.
    const uint64_t chunks =
        (geometry.volume_bytes + geometry.chunk_bytes - 1) / geometry.chunk_bytes;
    REQUIRE(layout.map_slot_blocks * kMapBlockChunks >= chunks);
    REQUIRE((layout.map_slot_blocks - 1) * kMapBlockChunks < chunks);
    REQUIRE(layout.log_ring_blocks >= 8);
    REQUIRE((layout.log_ring_blocks - 2) * kLogContext >= 2 * uint64_t{geometry.log_extents});
    REQUIRE(layout.extent_count() * geometry.extent_bytes >= geometry.volume_bytes);
    REQUIRE((layout.extent_count() - 1) * geometry.extent_bytes < geometry.volume_bytes);
  }
}

TEST_CASE("layout: the default geometry of 1 GiB, in blocks") {
  const Layout layout = make_layout(sized(kGiB));
  CHECK(layout.log_ring_blocks == 8);
  CHECK(layout.map_first_block == 1 + 4 * 8);
  CHECK(layout.map_slot_blocks == 9);  // 262,144 chunks of 32,256 a block
  CHECK(layout.total_blocks == 33 + 8 * 9 + 1);
}

TEST_CASE("layout: internal metadata leaves the largest volume that fits") {
  test::Random random;
  INFO("TIDEMARK_SEED=", test::test_seed());
  for (int round = 0; round < 2000; ++round) {
    const uint32_t block = random.chance(2) ? 512 : 4096;
    const uint64_t device =
        random.between(3 * kMiB, uint64_t{1} << random.between(23, 49)) / block * block;
    for (Placement placement : {Placement::kEnd, Placement::kStart}) {
      Split split;
      const auto error = split_device(device, block, placement, 0, Geometry{}, &split);
      REQUIRE_MESSAGE(!error, *error);
      const uint64_t volume = split.layout.geometry.volume_bytes;
      REQUIRE(volume % block == 0);
      REQUIRE(split.meta_offset % kBlockSize == 0);
      uint64_t room = device;
      if (placement == Placement::kEnd) {
        room = device / kBlockSize * kBlockSize;
        REQUIRE(split.data_offset == 0);
        REQUIRE(split.meta_offset >= volume);
        // The last block of the metadata is the last whole block of the disk.
        REQUIRE(split.meta_offset + split.layout.bytes() == room);
      } else {
        REQUIRE(split.meta_offset == 0);
        REQUIRE(split.data_offset == split.layout.bytes());
        REQUIRE(split.data_offset + volume <= device);
      }
      // One step more would not fit.
      const uint64_t step = placement == Placement::kEnd ? kBlockSize : block;
      REQUIRE(volume + step + make_layout(sized(volume + step)).bytes() > room);
    }
  }
}

TEST_CASE("layout: at an offset, and in a file of its own") {
  Split split;
  CHECK_FALSE(split_device(kGiB, 512, Placement::kOffset, 512 * kMiB, Geometry{}, &split));
  CHECK(split.layout.geometry.volume_bytes == 512 * kMiB);
  CHECK(split.meta_offset == 512 * kMiB);
  CHECK(split.data_offset == 0);
  CHECK(mentions(split_device(kGiB, 512, Placement::kOffset, 512 * kMiB + 512, Geometry{}, &split),
                 "multiple of 4096"));
  CHECK(mentions(split_device(kGiB, 512, Placement::kOffset, kGiB - 4096, Geometry{}, &split),
                 "only 4096 are left"));
  CHECK(mentions(split_device(kGiB, 512, Placement::kOffset, 2 * kGiB, Geometry{}, &split),
                 "out of range"));
  CHECK(split_device(kGiB, 512, Placement::kOffset, 0, Geometry{}, &split));

  CHECK_FALSE(split_device(kGiB + 512, 512, Placement::kExternal, 0, Geometry{}, &split));
  CHECK(split.layout.geometry.volume_bytes == kGiB + 512);
  CHECK_FALSE(split_device(kGiB + 512, 4096, Placement::kExternal, 0, Geometry{}, &split));
  CHECK(split.layout.geometry.volume_bytes == kGiB);
  CHECK(split.meta_offset == 0);
}

TEST_CASE("layout: devices that are too small, too large or of odd blocks are refused") {
  Split split;
  for (uint64_t bytes : {uint64_t{0}, uint64_t{512}, uint64_t{4096}, kMiB, kMiB + 4096}) {
    CHECK(mentions(split_device(bytes, 512, Placement::kEnd, 0, Geometry{}, &split), "too small"));
    CHECK(
        mentions(split_device(bytes, 512, Placement::kStart, 0, Geometry{}, &split), "too small"));
  }
  CHECK(split_device(kMiB - 512, 512, Placement::kExternal, 0, Geometry{}, &split));
  CHECK(split_device(UINT64_MAX, 512, Placement::kEnd, 0, Geometry{}, &split));
  CHECK(split_device((uint64_t{1} << 50) + kGiB, 512, Placement::kExternal, 0, Geometry{}, &split));
  CHECK(mentions(split_device(kGiB, 1024, Placement::kEnd, 0, Geometry{}, &split), "512 and 4096"));
  CHECK(mentions(split_device(kGiB, 512, Placement::kEnd, 4096, Geometry{}, &split), "'offset'"));
}

}  // namespace tidemark
