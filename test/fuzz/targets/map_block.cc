// Map blocks: a right one with fields written over, its checksum made right again or not, and what
// a map makes of its words.
#include "core/map_block.h"

#include <array>

#include "core/check.h"
#include "input.h"
#include "samples.h"

namespace tidemark::fuzz {
namespace {

constexpr size_t kCrcAt = 40;

}  // namespace
}  // namespace tidemark::fuzz

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tidemark;
  using namespace tidemark::fuzz;
  Input input({data, size});
  const uint8_t kind = input.byte();
  DirtyMap map((1 + input.below(3 * kMapBlockChunks)) * kChunkBytesMin - 512 * input.below(8),
               kChunkBytesMin);
  const MapBlockName name{0x4746454443424140, static_cast<uint32_t>(input.below(kMaxPeerSlots)),
                          input.below(map.block_count()), kChunkBytesMin};
  std::array<uint64_t, kMapBlockWords> words{};
  std::array<uint8_t, kBlockSize> block{};
  if (kind % 4 != 0) {
    words[0] = input.number();
    words[kMapBlockWords - 1] = input.number();
    encode_map_block(name, words, block);
  }
  while (!input.empty()) patch(&input, block);
  if (kind % 4 < 2) seal_block(block, kCrcAt);

  words.fill(~uint64_t{0});
  switch (parse_map_block(name, block, words)) {
    case MapBlockStatus::kGood: {
      std::array<uint8_t, kBlockSize> again;
      encode_map_block(name, words, again);
      check(again == block, "a map block is not what was parsed of it");
      map.load_block(name.index, words);
      check(!map.block_stale(name.index), "what was just read is stale");
      break;
    }
    case MapBlockStatus::kNeverWritten:
      check(map.count() == 0, "a block that was never written has marks");
      break;
    case MapBlockStatus::kUntrusted:
      map.load_untrusted(name.index);
      check(map.count() > 0 && map.block_stale_set(name.index),
            "a block that cannot be trusted is not dirty (R15)");
      break;
  }
  uint64_t found = 0;
  for (std::optional<ChunkRange> run = map.next_dirty_run(0, UINT64_MAX); run;
       run = map.next_dirty_run(run->first + run->count, UINT64_MAX)) {
    check(run->first + run->count <= map.chunk_count(), "marks beyond the map");
    found += run->count;
  }
  check(found == map.count(), "the count is not what is marked");
  // What the map writes back is what it would read.
  map.mark_chunks({map.chunk_count() - 1, 1});
  const uint64_t last = map.block_count() - 1;
  map.begin_write(last, words);
  DirtyMap copy(map.size_bytes(), map.chunk_bytes());
  copy.load_block(last, words);
  const uint64_t first = last * kMapBlockChunks;
  check(copy.count() == map.count_in({first, map.chunk_count() - first}),
        "a written block does not come back");
  map.end_write(last, true);
  return 0;
}
