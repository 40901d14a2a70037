// Superblocks: a right one with fields written over, its checksum made right again or not.
#include "core/superblock.h"

#include <array>

#include "core/check.h"
#include "core/crc32c.h"
#include "input.h"
#include "samples.h"

namespace tidemark::fuzz {
namespace {

constexpr size_t kCrcAt = 12;

void parse(std::span<const uint8_t, kBlockSize> block) {
  const SuperblockParse parsed = parse_superblock(block);
  check((parsed.error == SuperblockError::kNone) == parsed.message.empty(),
        "an error without words, or words without an error");
  if (parsed.error != SuperblockError::kNone) return;
  check(!check_superblock(parsed.superblock), "a superblock was taken that cannot be");
  const Geometry& geometry = parsed.superblock.geometry;
  const Layout layout = make_layout(geometry);
  check(layout.bytes() / kBlockSize == layout.total_blocks, "the layout's size overflows");
  check(layout.superblock_block(1) > layout.superblock_block(0), "both copies at one place");
  check(layout.extent_count() * geometry.extent_bytes >= geometry.volume_bytes,
        "the extents do not cover the volume");
  std::array<uint8_t, kBlockSize> again;
  encode_superblock(parsed.superblock, parsed.copy, again);
  check(std::equal(block.begin(), block.end(), again.begin()),
        "a superblock is not what was parsed of it");
}

}  // namespace
}  // namespace tidemark::fuzz

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tidemark;
  using namespace tidemark::fuzz;
  Input input({data, size});
  std::array<uint8_t, kBlockSize> block{};
  const uint8_t kind = input.byte();
  if (kind % 4 != 0) {
    encode_superblock(sample_superblock(static_cast<Placement>(kind / 4 % 4)), kind / 16 % 2,
                      block);
    while (!input.empty()) patch(&input, block);
  } else {
    const std::span<const uint8_t> bytes = input.rest();
    std::copy_n(bytes.begin(), std::min(bytes.size(), block.size()), block.begin());
  }
  if (kind % 4 == 1) seal_block(block, kCrcAt);
  parse(block);
  return 0;
}
