// A whole metadata area: a right one of a node that crashed, written over, with I/O that fails;
// then dump and attach, twice.
#include <array>
#include <cerrno>
#include <memory>
#include <string>
#include <vector>

#include "core/activity_log.h"
#include "core/attach.h"
#include "core/check.h"
#include "core/log_block.h"
#include "core/map_block.h"
#include "input.h"
#include "json.h"
#include "samples.h"

namespace tidemark::fuzz {
namespace {

// Three map blocks a slot.
constexpr uint64_t kDeviceBytes = (300u << 20) + kSectorSize;
constexpr size_t kSuperblockCrcAt = 12;
constexpr size_t kBlockCrcAt = 40;
constexpr uint64_t kDirtyChunks[] = {0, 40'000, 76'799};
constexpr uint32_t kHotExtents[] = {5, 299};

class Area : public MetadataIo {
 public:
  explicit Area(std::vector<uint8_t> image) : bytes(std::move(image)) {}
  int read(uint64_t offset, void* buffer, size_t count) override {
    if (!fits(offset, count)) return -EIO;
    if (unreadable < bytes.size() && offset <= unreadable && unreadable < offset + count) {
      return -EIO;
    }
    std::memcpy(buffer, bytes.data() + offset, count);
    return 0;
  }
  int write(uint64_t offset, const void* buffer, size_t count) override {
    check(fits(offset, count), "a write outside of the metadata area");
    if (writes_left == 0) return -ENOSPC;
    --writes_left;
    std::memcpy(bytes.data() + offset, buffer, count);
    return 0;
  }
  int flush() override { return 0; }

  std::vector<uint8_t> bytes;
  uint64_t unreadable = UINT64_MAX;  // a byte that cannot be read
  uint64_t writes_left = UINT64_MAX;

 private:
  bool fits(uint64_t offset, size_t count) const {
    return offset % kBlockSize == 0 && count % kBlockSize == 0 && offset <= bytes.size() &&
           count <= bytes.size() - offset;
  }
};

// A primary that crashed with marks on disk and hot extents in its log.
std::vector<uint8_t> make_image() {
  Superblock sb = sample_superblock(Placement::kExternal, kDeviceBytes);
  sb.flags |= kNodePrimary | kNodeAttached;
  const Layout layout = make_layout(sb.geometry);
  Area area(std::vector<uint8_t>(layout.bytes()));
  check(!create_metadata(area, sb, layout, true), "the sample cannot be created");
  uint64_t id = 0;
  std::memcpy(&id, sb.metadata_id.bytes, sizeof id);
  const auto block_at = [&](uint64_t block) {
    return std::span<uint8_t, kBlockSize>(area.bytes.data() + block * kBlockSize, kBlockSize);
  };

  DirtyMap map(sb.geometry.volume_bytes, sb.geometry.chunk_bytes);
  for (const uint64_t chunk : kDirtyChunks) map.mark_chunks({chunk, 1});
  for (uint64_t index = 0; index < map.block_count(); ++index) {
    std::array<uint64_t, kMapBlockWords> words;
    map.begin_write(index, words);
    encode_map_block({id, 0, index, sb.geometry.chunk_bytes}, words,
                     block_at(layout.map_block(0, index)));
    map.end_write(index, true);
  }
  ActivityLog log(sb.geometry.log_extents, layout.extent_count(), 1);
  for (const uint32_t extent : kHotExtents) {
    log.begin(extent, extent, false);
    const LogTransaction& transaction = log.start_transaction();
    encode_log_block({id, 0, sb.geometry.log_extents}, transaction,
                     block_at(layout.log_block(0, transaction.number)));
    log.transaction_done(true);
  }
  return area.bytes;
}

struct Damage {
  bool forged = false;    // a checksum was made right again
  bool hopeless = false;  // what no checksum can tell: a block of zeroes, the newest log block
};

Damage spoil(Input* input, std::vector<uint8_t>* image, const Layout& layout) {
  Damage damage;
  const uint64_t blocks = image->size() / kBlockSize;
  while (!input->empty()) {
    const uint64_t block = input->below(blocks);
    const bool seals = input->flag();
    const std::span<uint8_t> bytes = std::span(*image).subspan(block * kBlockSize, kBlockSize);
    patch(input, bytes);
    if (seals) {
      const bool superblock = block == 0 || block == blocks - 1;
      seal_block(bytes, superblock ? kSuperblockCrcAt : kBlockCrcAt);
      damage.forged = true;
    }
    damage.hopeless =
        damage.hopeless || is_blank(bytes) || block == layout.log_block(0, std::size(kHotExtents));
  }
  return damage;
}

void check_maps(const Attachment& attachment) {
  for (uint32_t slot = 0; slot < kMaxPeerSlots; ++slot) {
    const bool in_use = (attachment.superblock.slots[slot].flags & kSlotInUse) != 0;
    check(in_use == (attachment.maps[slot] != nullptr), "a slot in use without a map");
    if (!in_use) continue;
    const DirtyMap& map = *attachment.maps[slot];
    check(map.count() <= map.chunk_count(), "more marks than chunks");
    check(map.size_bytes() == attachment.layout.geometry.volume_bytes, "a map of another size");
  }
}

void check_nothing_lost(const Attachment& attachment) {
  const DirtyMap* map = attachment.maps[0].get();
  check(map != nullptr, "the peer's slot was lost");
  for (const uint64_t chunk : kDirtyChunks) check(map->test(chunk), "a mark was lost");
  for (const uint32_t extent : kHotExtents) {
    const uint64_t bytes = attachment.layout.geometry.extent_bytes;
    const ByteRange range{extent * bytes, bytes};
    const ChunkRange chunks = map->outward(range);
    check(map->count_in(chunks) == chunks.count, "a hot extent is not dirty (R13)");
  }
}

}  // namespace
}  // namespace tidemark::fuzz

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tidemark;
  using namespace tidemark::fuzz;
  static const std::vector<uint8_t> image = make_image();
  static const Layout layout =
      make_layout(sample_superblock(Placement::kExternal, kDeviceBytes).geometry);
  Input input({data, size});
  Area area(image);
  const uint8_t kind = input.byte();
  const bool unreadable = (kind & 1) != 0;
  if (unreadable) area.unreadable = input.below(area.bytes.size() / kBlockSize) * kBlockSize;
  if ((kind & 2) != 0) area.writes_left = input.byte();
  // The area as the device shows it: its copy 1 is found from the end.
  if ((kind & 12) == 12) area.bytes.resize((1 + input.below(60)) * kBlockSize);
  const bool resized = area.bytes.size() != image.size();
  const Damage damage = spoil(&input, &area.bytes, layout);

  const std::vector<uint8_t> before = area.bytes;
  const std::string dump = dump_metadata(area, area.bytes.size());
  check(JsonCheck::is_json(dump), "the dump is no JSON");
  check(area.bytes == before, "a dump has written");

  const Expectation expected = (kind & 16) != 0 ? Expectation{} : Expectation{kDeviceBytes, 512};
  std::unique_ptr<Attachment> attachment;
  if (const auto error = attach_metadata(area, area.bytes.size(), expected, &attachment)) {
    check(!error->code.empty() && !error->message.empty(), "an error without words");
    check(attachment == nullptr, "an attachment that failed was handed out");
    return 0;
  }
  check_maps(*attachment);
  if (!damage.forged && !damage.hopeless && !unreadable && !resized) {
    check_nothing_lost(*attachment);
  }

  // What was attached once is whole now, and says the same again.
  area.unreadable = UINT64_MAX;
  area.writes_left = UINT64_MAX;
  std::unique_ptr<Attachment> again;
  const auto error = attach_metadata(area, area.bytes.size(), expected, &again);
  check(!error, "what was attached cannot be attached again");
  check(again->crashed, "an attachment was not written down");
  check_maps(*again);
  check(again->log_next_number >= attachment->log_next_number, "the log goes back");
  for (uint32_t slot = 0; slot < kMaxPeerSlots; ++slot) {
    if (attachment->maps[slot] == nullptr) continue;
    check(again->maps[slot]->count() >= attachment->maps[slot]->count(),
          "marks were not durable when the attach ended (R13)");
  }
  return 0;
}
