#include "core/attach.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

namespace tidemark {
namespace {

// A metadata area in memory whose power goes in the middle of one of the writes, which is bad then.
class Area : public MetadataIo {
 public:
  explicit Area(uint64_t bytes) : bytes_(bytes) {}
  int read(uint64_t offset, void* buffer, size_t bytes) override {
    if (bad_block != 0 && offset <= bad_block * kBlockSize &&
        bad_block * kBlockSize < offset + bytes) {
      return -EIO;
    }
    std::memcpy(buffer, bytes_.data() + offset, bytes);
    return 0;
  }
  int write(uint64_t offset, const void* buffer, size_t bytes) override {
    if (writes_left == 0) return -EIO;
    std::memcpy(bytes_.data() + offset, buffer, bytes);
    if (--writes_left != 0) return 0;
    scratch(offset);
    return -EIO;
  }
  int flush() override {
    if (flushes_fail != 0) {
      --flushes_fail;
      return -EIO;
    }
    return writes_left == 0 ? -EIO : 0;
  }
  int flush_data() override {
    ++data_flushes;
    if (data_flushes_fail != 0) {
      --data_flushes_fail;
      return -EIO;
    }
    return data_flush_result;
  }
  void scratch(uint64_t offset) { bytes_[offset] ^= 0xff; }

  uint64_t writes_left = UINT64_MAX;
  uint32_t flushes_fail = 0;  // so many of the next ones
  uint32_t data_flushes_fail = 0;
  uint64_t bad_block = 0;  // cannot be read
  uint32_t data_flushes = 0;
  int data_flush_result = 0;

 private:
  std::vector<uint8_t> bytes_;
};

Superblock superblock(const Layout& layout) {
  Superblock sb;
  sb.placement = Placement::kExternal;
  sb.geometry = layout.geometry;
  sb.device_bytes = layout.geometry.volume_bytes;
  sb.metadata_id.bytes[0] = 1;
  sb.node_id.bytes[0] = 2;
  return sb;
}

Layout one_peer_layout(uint64_t volume_bytes) {
  Geometry geometry;
  geometry.volume_bytes = volume_bytes;
  geometry.peer_slots = 1;
  return make_layout(geometry);
}

// For a layout with one peer, which is known.
void create_with_peer(Area& area, const Layout& layout) {
  Superblock sb = superblock(layout);
  sb.slots[0].flags = kSlotInUse;
  sb.slots[0].node_id.bytes[0] = 3;
  REQUIRE_FALSE(create_metadata(area, sb, layout, true));
}

}  // namespace

TEST_CASE("the superblock copy that holds is left alone until the other one is durable") {
  Geometry geometry;
  geometry.volume_bytes = 16u << 20;
  const Layout layout = make_layout(geometry);
  for (const uint32_t damaged : {0u, 1u}) {
    // Everything that attach writes here: both copies.
    for (uint64_t cut = 1; cut <= 3; ++cut) {
      CAPTURE(damaged);
      CAPTURE(cut);
      Area area(layout.bytes());
      REQUIRE_FALSE(create_metadata(area, superblock(layout), layout, true));
      area.scratch(layout.superblock_block(damaged) * kBlockSize + 700);
      std::unique_ptr<Attachment> attachment;
      area.writes_left = cut;
      CHECK(attach_metadata(area, layout.bytes(), {}, &attachment).has_value() == (cut <= 2));
      area.writes_left = UINT64_MAX;
      const auto error = attach_metadata(area, layout.bytes(), {}, &attachment);
      CHECK_MESSAGE(!error, error->message);
    }
  }
}

TEST_CASE("after a crash the disk is flushed before the log lets go of what it may have cached") {
  Geometry geometry;
  geometry.volume_bytes = 16u << 20;
  const Layout layout = make_layout(geometry);
  Area area(layout.bytes());
  REQUIRE_FALSE(create_metadata(area, superblock(layout), layout, true));
  std::unique_ptr<Attachment> attachment;
  REQUIRE_FALSE(attach_metadata(area, layout.bytes(), {}, &attachment));
  CHECK(area.data_flushes == 0);
  // Not stopped since: a crash. A disk that cannot be flushed keeps the log as it is.
  const uint64_t start = attachment->superblock.log_start_number;
  area.data_flush_result = -EIO;
  CHECK(attach_metadata(area, layout.bytes(), {}, &attachment).has_value());
  CHECK(attachment->superblock.log_start_number == start);
  area.data_flush_result = 0;
  REQUIRE_FALSE(attach_metadata(area, layout.bytes(), {}, &attachment));
  CHECK(area.data_flushes == 2);
  CHECK(attachment->crashed);
}

TEST_CASE("a disk whose flush failed at an attach is not UpToDate at the next, which succeeds") {
  Geometry geometry;
  geometry.volume_bytes = 16u << 20;
  const Layout layout = make_layout(geometry);
  for (const bool primary : {false, true}) {
    for (const bool internal : {false, true}) {
      CAPTURE(primary);
      CAPTURE(internal);
      Area area(layout.bytes());
      Superblock sb = superblock(layout);
      sb.current = 77;
      sb.flags = kNodeConsistent | kNodeWasUpToDate | kNodeAttached | (primary ? kNodePrimary : 0);
      REQUIRE_FALSE(create_metadata(area, sb, layout, true));
      std::unique_ptr<Attachment> attachment;
      // The kernel tells of what was lost once.
      (internal ? area.flushes_fail : area.data_flushes_fail) = 1;
      CHECK(attach_metadata(area, layout.bytes(), {}, &attachment).has_value());
      REQUIRE_FALSE(attach_metadata(area, layout.bytes(), {}, &attachment));
      const uint32_t flags = attachment->superblock.flags;
      CHECK((flags & kNodeWasUpToDate) == 0);
      CHECK((flags & kNodeConsistent) == (primary ? kNodeConsistent : 0));
      CHECK((flags & kNodeCrashedPrimary) == (primary ? kNodeCrashedPrimary : 0));
    }
  }
}

TEST_CASE("a map block that cannot be read makes dirty what it stands for and nothing else") {
  const Layout layout = one_peer_layout(uint64_t{1} << 30);
  REQUIRE(layout.map_slot_blocks > 3);
  Area area(layout.bytes());
  create_with_peer(area, layout);
  area.bad_block = layout.map_block(0, 2);
  std::unique_ptr<Attachment> attachment;
  const auto error = attach_metadata(area, layout.bytes(), {}, &attachment);
  REQUIRE_MESSAGE(!error, error->message);
  CHECK(attachment->warnings.size() == 1);
  const DirtyMap& map = *attachment->maps[0];
  CHECK(map.count() == kMapBlockChunks);
  CHECK(map.count_in({2 * kMapBlockChunks, kMapBlockChunks}) == kMapBlockChunks);
}

TEST_CASE("map blocks near each other are written at once, and those between stay as they were") {
  const Layout layout = one_peer_layout(uint64_t{100} << 30);
  REQUIRE(layout.map_slot_blocks > 700);
  Area area(layout.bytes());
  create_with_peer(area, layout);
  std::vector<uint64_t> stale = {1, 17, 34, layout.map_slot_blocks - 1};
  for (uint64_t block = 100; block < 500; block += 16) stale.push_back(block);
  for (const uint64_t block : stale) area.scratch(layout.map_block(0, block) * kBlockSize);
  std::unique_ptr<Attachment> attachment;
  area.writes_left = 1000;
  REQUIRE_FALSE(attach_metadata(area, layout.bytes(), {}, &attachment));
  // [1..17], 34, [100..340], [356..484], the last one; both superblocks.
  CHECK(1000 - area.writes_left == 7);
  const uint64_t dirty = attachment->maps[0]->count();
  CHECK(attachment->maps[0]->stale_blocks() == 0);
  REQUIRE_FALSE(attach_metadata(area, layout.bytes(), {}, &attachment));
  CHECK(attachment->warnings.empty());
  const DirtyMap& map = *attachment->maps[0];
  CHECK(map.count() == dirty);
  for (uint64_t block = 0; block < layout.map_slot_blocks; ++block) {
    const bool whole = std::find(stale.begin(), stale.end(), block) != stale.end();
    CAPTURE(block);
    CHECK(map.test(block * kMapBlockChunks) == whole);
  }
}

}  // namespace tidemark
