#include "core/dirty_map.h"

#include <doctest/doctest.h>
#include <sys/resource.h>

#include <array>
#include <chrono>
#include <vector>

#include "random.h"

namespace tidemark {
namespace {

using Words = std::array<uint64_t, kMapBlockWords>;

constexpr uint64_t kMiB = uint64_t{1} << 20;

// What the map has to do, one byte a chunk.
struct Model {
  explicit Model(const DirtyMap& map)
      : dirty(map.chunk_count()), chunk(map.chunk_bytes()), size(map.size_bytes()) {}
  std::vector<uint8_t> dirty;
  uint64_t chunk;
  uint64_t size;

  uint64_t mark(ByteRange range) {
    uint64_t changed = 0;
    for (uint64_t i = 0; i < dirty.size(); ++i) {
      const uint64_t begin = i * chunk, end = std::min(size, begin + chunk);
      if (range.length == 0 || range.offset >= end || range.end() <= begin || dirty[i]) continue;
      dirty[i] = 1;
      ++changed;
    }
    return changed;
  }
  uint64_t clear(ByteRange range) {
    uint64_t changed = 0;
    for (uint64_t i = 0; i < dirty.size(); ++i) {
      const uint64_t begin = i * chunk, end = std::min(size, begin + chunk);
      if (range.length == 0 || range.offset > begin || range.end() < end || !dirty[i]) continue;
      dirty[i] = 0;
      ++changed;
    }
    return changed;
  }
  uint64_t count() const {
    uint64_t n = 0;
    for (uint8_t d : dirty) n += d;
    return n;
  }
};

void require_equal(const DirtyMap& map, const Model& model) {
  uint64_t bytes = 0;
  for (uint64_t i = 0; i < model.dirty.size(); ++i) {
    REQUIRE(map.test(i) == (model.dirty[i] != 0));
    if (model.dirty[i]) bytes += std::min(model.chunk, model.size - i * model.chunk);
  }
  REQUIRE(map.count() == model.count());
  REQUIRE(map.dirty_bytes() == bytes);
  // Runs from next_dirty_run give exactly the dirty chunks.
  uint64_t seen = 0, at = 0;
  while (auto run = map.next_dirty_run(at, UINT64_MAX)) {
    REQUIRE(run->first >= at);
    for (uint64_t i = at; i < run->first; ++i) REQUIRE(model.dirty[i] == 0);
    for (uint64_t i = 0; i < run->count; ++i) REQUIRE(model.dirty[run->first + i] != 0);
    seen += run->count;
    at = run->first + run->count;
    if (at < model.dirty.size()) REQUIRE(model.dirty[at] == 0);
  }
  REQUIRE(seen == model.count());
}

void write_all(DirtyMap& map) {
  Words words;
  while (auto block = map.next_stale(0)) {
    map.begin_write(*block, words);
    map.end_write(*block, true);
  }
}

}  // namespace

TEST_CASE(
    "dirty map: marks round outward, clears inward, the short last chunk is whole at the end") {
  DirtyMap map(10 * 4096 + 512, 4096);
  CHECK(map.chunk_count() == 11);
  CHECK(map.mark({4095, 2}) == 2);
  CHECK(map.test(0));
  CHECK(map.test(1));
  CHECK(map.mark({4095, 2}) == 0);
  CHECK(map.clear({4095, 4097}) == 1);  // covers chunk 1 only
  CHECK(map.test(0));
  CHECK(map.clear({1, 4095}) == 0);
  CHECK(map.clear({0, 4096}) == 1);
  CHECK(map.mark({10 * 4096 + 511, 1}) == 1);
  CHECK(map.dirty_bytes() == 512);
  CHECK(map.clear({10 * 4096 + 1, 511}) == 0);
  CHECK(map.clear({10 * 4096, 511}) == 0);
  CHECK(map.clear({10 * 4096, 512}) == 1);
  CHECK(map.count() == 0);
  CHECK(map.mark({5, 0}) == 0);
  CHECK(map.clear({5, 0}) == 0);
  CHECK(map.outward({5, 0}).count == 0);
  CHECK(map.bytes_of({10, 1}).length == 512);
  CHECK(map.bytes_of({0, 11}).length == map.size_bytes());
  // An extent may reach past the device's end.
  CHECK(map.outward({8 * 4096, kMiB}).count == 3);
  CHECK(map.inward({8 * 4096, kMiB}).count == 3);
  CHECK(map.blocks_of({0, kMiB}).count == 1);
  CHECK(map.blocks_of({kMiB, kMiB}).count == 0);
}

TEST_CASE("dirty map: behaves as one byte a chunk would, over random operations") {
  test::Random random;
  INFO("TIDEMARK_SEED=", test::test_seed());
  for (int round = 0; round < 30; ++round) {
    const uint32_t chunk = 4096u << random.below(3);
    const uint64_t size =
        random.between(1, 100000) * 512 + (random.chance(4) ? 70000ull * chunk : 0);
    DirtyMap map(size, chunk);
    Model model(map);
    for (int step = 0; step < 60; ++step) {
      const uint64_t offset = random.below(size);
      const uint64_t length = random.chance(3)
                                  ? random.below(size - offset + 1)
                                  : std::min(size - offset, random.below(20 * uint64_t{chunk}));
      const ByteRange range{offset, length};
      switch (random.below(12)) {
        case 0:
          map.clear_all();
          std::fill(model.dirty.begin(), model.dirty.end(), 0);
          break;
        case 1:
          if (random.chance(4)) {
            map.mark_all();
            std::fill(model.dirty.begin(), model.dirty.end(), 1);
          }
          break;
        case 2:
        case 3:
        case 4:
        case 5:
          REQUIRE(map.clear(range) == model.clear(range));
          break;
        default:
          REQUIRE(map.mark(range) == model.mark(range));
      }
      const ChunkRange chunks = map.outward(range);
      uint64_t inside = 0;
      for (uint64_t i = 0; i < chunks.count; ++i) inside += model.dirty[chunks.first + i];
      REQUIRE(map.count_in(chunks) == inside);
      REQUIRE(map.any(range) == (inside != 0));
    }
    require_equal(map, model);
  }
}

TEST_CASE("dirty map: a run is cut at its limit") {
  DirtyMap map(1000 * 4096, 4096);
  map.mark_chunks({100, 300});
  CHECK(map.next_dirty(0) == 100);
  CHECK(map.next_dirty(399) == 399);
  CHECK_FALSE(map.next_dirty(400));
  CHECK_FALSE(map.next_dirty(UINT64_MAX));
  CHECK(map.next_dirty_run(0, 64)->count == 64);
  CHECK(map.next_dirty_run(150, UINT64_MAX)->first == 150);
  CHECK(map.next_dirty_run(150, UINT64_MAX)->count == 250);
}

TEST_CASE("dirty map: blocks on disk are stale exactly when they need another write") {
  DirtyMap map(3 * kMapBlockChunks * 4096, 4096);
  Words words;
  REQUIRE(map.block_count() == 3);
  CHECK(map.stale_blocks() == 0);
  map.mark_chunks({kMapBlockChunks - 1, 2});
  CHECK(map.stale_blocks() == 2);
  CHECK(map.next_stale(1) == 1);
  CHECK_FALSE(map.next_stale(2));
  CHECK(map.block_stale_set(0));

  map.begin_write(0, words);
  CHECK(words[kMapBlockWords - 1] == uint64_t{1} << 63);
  CHECK(map.block_writing(0));
  CHECK_FALSE(map.block_stale(0));
  SUBCASE("a mark that changes nothing does not make it stale, one that does makes it so") {
    map.mark_chunks({kMapBlockChunks - 1, 1});
    CHECK_FALSE(map.block_stale(0));
    map.mark_chunks({0, 1});
    CHECK(map.block_stale_set(0));
    map.end_write(0, true);
    CHECK(map.block_stale_set(0));
  }
  SUBCASE("a clear in flight needs a write, but no hurry") {
    map.clear_chunks({kMapBlockChunks - 1, 1});
    CHECK(map.block_stale(0));
    CHECK_FALSE(map.block_stale_set(0));
    map.end_write(0, true);
    CHECK(map.block_stale(0));
    CHECK_FALSE(map.block_writing(0));
  }
  SUBCASE("a write that fails leaves it stale with marks") {
    map.end_write(0, false);
    CHECK(map.block_stale_set(0));
    CHECK_FALSE(map.block_writing(0));
  }
  SUBCASE("clearing all keeps blocks stale that the disk has marks for") {
    map.end_write(0, true);
    map.clear_all();
    CHECK(map.block_stale(0));
    CHECK(map.block_stale(1));
    CHECK_FALSE(map.block_stale_set(1));
    CHECK_FALSE(map.block_stale(2));
    map.begin_write(0, words);
    for (uint64_t word : words) REQUIRE(word == 0);
    map.end_write(0, true);
  }
  SUBCASE("all marked is all stale") {
    map.end_write(0, true);
    map.mark_all();
    CHECK(map.stale_blocks() == 3);
    write_all(map);
    CHECK(map.stale_blocks() == 0);
    CHECK(map.count() == map.chunk_count());
  }
}

TEST_CASE("dirty map: what is on disk after any writes and a crash has every durable mark") {
  test::Random random;
  INFO("TIDEMARK_SEED=", test::test_seed());
  constexpr uint64_t kBlocks = 4;
  DirtyMap map(kBlocks * kMapBlockChunks * 4096 - 5 * 4096, 4096);
  std::vector<Words> disk(kBlocks), flight(kBlocks);
  for (Words& words : disk) words.fill(0);
  for (int step = 0; step < 20000; ++step) {
    const uint64_t block = random.below(kBlocks);
    const uint64_t first = random.below(map.chunk_count());
    const ChunkRange range{first, std::min(map.chunk_count() - first, random.between(1, 50))};
    switch (random.below(4)) {
      case 0:
        map.mark_chunks(range);
        break;
      case 1:
        map.clear_chunks(range);
        break;
      case 2:
        if (!map.block_writing(block)) map.begin_write(block, flight[block]);
        break;
      case 3:
        if (map.block_writing(block)) {
          const bool ok = !random.chance(4);
          if (ok) disk[block] = flight[block];
          map.end_write(block, ok);
        }
        break;
    }
    for (uint64_t b = 0; b < kBlocks; ++b) {
      if (map.block_stale_set(b) || map.block_writing(b)) continue;
      // Every mark in RAM is on disk; and without stale, both are the same.
      for (uint64_t w = 0; w < kMapBlockWords; ++w) {
        const uint64_t chunk = (b * kMapBlockWords + w) * 64;
        uint64_t ram = 0;
        for (uint64_t i = 0; step % 500 == 0 && i < 64 && chunk + i < map.chunk_count(); ++i) {
          ram |= uint64_t{map.test(chunk + i)} << i;
        }
        if (step % 500 != 0) break;
        REQUIRE((ram & ~disk[b][w]) == 0);
        if (!map.block_stale(b)) REQUIRE(ram == disk[b][w]);
      }
    }
  }
}

TEST_CASE("dirty map: a map read back from its blocks is the same") {
  test::Random random;
  INFO("TIDEMARK_SEED=", test::test_seed());
  const uint64_t size = (2 * kMapBlockChunks + 1000) * 4096 + 512;
  DirtyMap map(size, 4096), again(size, 4096);
  for (int i = 0; i < 500; ++i) {
    map.mark_chunks({random.below(map.chunk_count() - 40), random.below(40)});
  }
  map.mark_chunks({map.chunk_count() - 1, 1});
  for (uint64_t block = 0; block < map.block_count(); ++block) {
    Words words;
    map.begin_write(block, words);
    map.end_write(block, true);
    if (block == 2) words[kMapBlockWords - 1] = ~uint64_t{0};  // past the map
    again.load_block(block, words);
    REQUIRE_FALSE(again.block_stale(block));
  }
  REQUIRE(again.count() == map.count());
  for (uint64_t chunk = 0; chunk < map.chunk_count(); ++chunk)
    REQUIRE(map.test(chunk) == again.test(chunk));
  Words words;
  words.fill(0);
  again.load_block(0, words);  // replaces what was there
  CHECK(again.count_in({0, kMapBlockChunks}) == 0);
  CHECK(again.next_dirty(0).value_or(kMapBlockChunks) >= kMapBlockChunks);
  again.load_untrusted(1);
  CHECK(again.count_in({kMapBlockChunks, kMapBlockChunks}) == kMapBlockChunks);
  CHECK(again.block_stale_set(1));
  CHECK_FALSE(again.block_stale(0));
  again.load_untrusted(2);
  CHECK(again.test(again.chunk_count() - 1));
  CHECK(again.count_in({2 * kMapBlockChunks, 1001}) == 1001);
}

TEST_CASE("dirty map: 1 PiB in chunks of 4 KiB costs what is dirty, and finds it at once") {
  DirtyMap map(uint64_t{1} << 50, 4096);
  struct rusage before, after;
  getrusage(RUSAGE_SELF, &before);
  const auto start = std::chrono::steady_clock::now();
  for (int round = 0; round < 1000; ++round) {
    CHECK_FALSE(map.next_dirty(0));
    map.mark_chunks({map.chunk_count() - 1, 1});
    REQUIRE(map.next_dirty(0) == map.chunk_count() - 1);
    REQUIRE(map.count_in({1, map.chunk_count() - 1}) == 1);
    REQUIRE(map.clear_chunks({0, map.chunk_count()}) == 1);
  }
  map.mark_chunks({12345678901, 100000});
  map.clear_all();
  CHECK(map.count() == 0);
  CHECK_FALSE(map.next_dirty(0));
  const auto elapsed = std::chrono::steady_clock::now() - start;
  getrusage(RUSAGE_SELF, &after);
  // A scan of the map would take hours in the first case and tens of GiB in the second.
  CHECK(elapsed < std::chrono::seconds(10));
  CHECK(after.ru_maxrss - before.ru_maxrss < 32 * 1024);
  CHECK(map.memory_bytes() < map.chunk_count() / 8 / 100 * 102);
}

}  // namespace tidemark
