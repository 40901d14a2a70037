// The dirty map's operations, by the size of the volume. A map of 1 PiB reserves 32 GiB of
// addresses and gets pages only where it was marked, so that it can be measured anywhere.
#include <benchmark/benchmark.h>

#include <array>
#include <chrono>
#include <vector>

#include "core/dirty_map.h"
#include "core/map_block.h"
#include "core/run_length.h"
#include "volumes.h"

namespace tidemark {
namespace {

constexpr uint64_t kWriteBytes = 4096;
constexpr size_t kPlaces = 4096;  // a power of two
constexpr uint64_t kFewMarks = 10;
// Twice the largest last-level cache that one would meet.
constexpr size_t kEvictionBytes = size_t{128} << 20;

uint64_t volume_bytes(const benchmark::State& state) {
  return static_cast<uint64_t>(state.range(0)) * kTiB;
}

void mark_few(DirtyMap* map) {
  Scatter scatter(map->chunk_count());
  for (uint64_t mark = 0; mark < kFewMarks; ++mark) map->mark_chunks({scatter.next(), 1});
}

void sizes(benchmark::internal::Benchmark* bench) {
  bench->ArgName("TiB")->Arg(1)->Arg(16)->Arg(1024);
}

// What a write that its peer does not get costs here, over the hot set of a full activity log.
void mark_marked(benchmark::State& state) {
  DirtyMap map(volume_bytes(state), kChunkBytesDefault);
  const std::vector<uint64_t> places = Scatter(map.chunk_count()).take(kPlaces);
  for (const uint64_t place : places) map.mark_chunks({place, 1});
  size_t at = 0;
  for (auto _ : state) {
    benchmark::DoNotOptimize(map.mark({places[at++ % kPlaces] * kWriteBytes, kWriteBytes}));
  }
}
BENCHMARK(mark_marked)->Apply(sizes);

// Bits that change, with their summaries, and back. The pages stay.
void mark_and_clear(benchmark::State& state) {
  DirtyMap map(volume_bytes(state), kChunkBytesDefault);
  const std::vector<uint64_t> places = Scatter(map.chunk_count()).take(kPlaces);
  for (const uint64_t place : places) map.mark_chunks({place, 1});
  map.clear_chunks({0, map.chunk_count()});
  size_t at = 0;
  for (auto _ : state) {
    const ByteRange range{places[at++ % kPlaces] * kWriteBytes, kWriteBytes};
    benchmark::DoNotOptimize(map.mark(range));
    benchmark::DoNotOptimize(map.clear(range));
  }
}
BENCHMARK(mark_and_clear)->Apply(sizes);

// An acknowledgement that finds nothing to clear, as all do while nothing was marked.
void clear_clean(benchmark::State& state) {
  DirtyMap map(volume_bytes(state), kChunkBytesDefault);
  mark_few(&map);
  const std::vector<uint64_t> places = Scatter(map.chunk_count()).take(kPlaces);
  size_t at = 0;
  for (auto _ : state) {
    benchmark::DoNotOptimize(map.clear({places[at++ % kPlaces] * kWriteBytes, kWriteBytes}));
  }
}
BENCHMARK(clear_clean)->Apply(sizes);

// A hot extent of 4 MiB after a crash, marked and cleared in one step each.
void mark_and_clear_extent(benchmark::State& state) {
  DirtyMap map(volume_bytes(state), kChunkBytesDefault);
  Scatter scatter(map.size_bytes() / kExtentBytesDefault);
  const ByteRange range{scatter.next() * kExtentBytesDefault, kExtentBytesDefault};
  for (auto _ : state) {
    benchmark::DoNotOptimize(map.mark(range));
    benchmark::DoNotOptimize(map.clear(range));
  }
}
BENCHMARK(mark_and_clear_extent)->Apply(sizes);

void next_dirty_few_marks(benchmark::State& state) {
  DirtyMap map(volume_bytes(state), kChunkBytesDefault);
  mark_few(&map);
  uint64_t at = 0;
  for (auto _ : state) {
    const std::optional<uint64_t> chunk = map.next_dirty(at);
    at = chunk ? *chunk + 1 : 0;
    benchmark::DoNotOptimize(at);
  }
}
BENCHMARK(next_dirty_few_marks)->Apply(sizes);

// The same when nothing of it is in a cache, neither the map nor page tables nor the code: what the
// first look after other work costs at most.
void next_dirty_few_marks_cold(benchmark::State& state) {
  using Clock = std::chrono::steady_clock;
  DirtyMap map(volume_bytes(state), kChunkBytesDefault);
  mark_few(&map);
  std::vector<uint8_t> other(kEvictionBytes);
  uint64_t at = 0;
  for (auto _ : state) {
    for (size_t byte = 0; byte < other.size(); byte += 64) ++other[byte];
    benchmark::ClobberMemory();
    const auto begin = Clock::now();
    const std::optional<uint64_t> chunk = map.next_dirty(at);
    at = chunk ? *chunk + 1 : 0;
    benchmark::DoNotOptimize(at);
    state.SetIterationTime(std::chrono::duration<double>(Clock::now() - begin).count());
  }
}
BENCHMARK(next_dirty_few_marks_cold)->ArgName("TiB")->Arg(1024)->UseManualTime()->Iterations(100);

// Per dirty chunk of a map in which every 64th one is.
void next_dirty_run_scattered(benchmark::State& state) {
  DirtyMap map(kTiB, kChunkBytesDefault);
  for (uint64_t chunk = 0; chunk < map.chunk_count() / 64; chunk += 64) {
    map.mark_chunks({chunk, 1});
  }
  uint64_t at = 0;
  for (auto _ : state) {
    const std::optional<ChunkRange> run = map.next_dirty_run(at, 256);
    at = run ? run->first + run->count : 0;
    benchmark::DoNotOptimize(at);
  }
}
BENCHMARK(next_dirty_run_scattered);

// What two sides tell each other before a resync.
void encode_few_marks(benchmark::State& state) {
  DirtyMap map(volume_bytes(state), kChunkBytesDefault);
  mark_few(&map);
  std::vector<uint8_t> code;
  for (auto _ : state) {
    code.clear();
    benchmark::DoNotOptimize(encode_runs(map, 0, 65536, &code));
  }
  state.counters["bytes"] = static_cast<double>(code.size());
}
BENCHMARK(encode_few_marks)->Apply(sizes);

void write_block(benchmark::State& state) {
  DirtyMap map(kTiB, kChunkBytesDefault);
  map.mark_chunks({0, 1});
  std::array<uint64_t, kMapBlockWords> words;
  std::array<uint8_t, kBlockSize> image;
  for (auto _ : state) {
    map.begin_write(0, words);
    encode_map_block({1, 0, 0, kChunkBytesDefault}, words, image);
    map.end_write(0, true);
    benchmark::DoNotOptimize(image);
  }
}
BENCHMARK(write_block);

// One of the many blocks that an attach reads: with marks, and never written.
void read_block(benchmark::State& state) {
  DirtyMap map(kTiB, kChunkBytesDefault);
  std::array<uint64_t, kMapBlockWords> words;
  for (uint64_t& word : words) word = 0x0101;
  std::array<uint8_t, kBlockSize> image{};
  const MapBlockName name{1, 0, 0, kChunkBytesDefault};
  if (state.range(0) != 0) encode_map_block(name, words, image);
  for (auto _ : state) {
    if (parse_map_block(name, image, words) == MapBlockStatus::kGood) map.load_block(0, words);
    benchmark::DoNotOptimize(words);
  }
  state.SetBytesProcessed(state.iterations() * kBlockSize);
}
BENCHMARK(read_block)->ArgName("written")->Arg(0)->Arg(1);

// Each page of a new map is written: what a peer that has nothing costs.
void mark_all(benchmark::State& state) {
  for (auto _ : state) {
    DirtyMap map(kTiB, kChunkBytesDefault);
    map.mark_all();
    benchmark::DoNotOptimize(map.count());
  }
}
BENCHMARK(mark_all);

// Reserving the addresses, and giving them back.
void make_map(benchmark::State& state) {
  for (auto _ : state) {
    DirtyMap map(volume_bytes(state), kChunkBytesDefault);
    benchmark::DoNotOptimize(map.count());
  }
}
BENCHMARK(make_map)->Apply(sizes);

}  // namespace
}  // namespace tidemark
