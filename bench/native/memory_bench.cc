// RAM of dirty map and activity log beside the least that a map needs, 1 bit a chunk and peer. The
// counters are what counts here: beyond_percent is what map and log use more than that, if every
// page of the map were touched.
#include <benchmark/benchmark.h>

#include "core/activity_log.h"
#include "core/dirty_map.h"
#include "volumes.h"

namespace tidemark {
namespace {

// One peer: the log is shared by all of them, so that this is the worst case.
void map_and_log(benchmark::State& state) {
  const uint64_t bytes = static_cast<uint64_t>(state.range(0)) << 30;
  const auto extents = static_cast<uint32_t>(state.range(1));
  const DirtyMap map(bytes, kChunkBytesDefault);
  const ActivityLog log(extents, (bytes + kExtentBytesDefault - 1) / kExtentBytesDefault, 1);
  const double least = static_cast<double>(map.chunk_count()) / 8;
  const double used = static_cast<double>(map.memory_bytes() + log.memory_bytes());
  for (auto _ : state) benchmark::DoNotOptimize(map.count());
  state.counters["map_bytes"] = static_cast<double>(map.memory_bytes());
  state.counters["log_bytes"] = static_cast<double>(log.memory_bytes());
  state.counters["beyond_percent"] = (used / least - 1) * 100;
}
BENCHMARK(map_and_log)
    ->ArgNames({"GiB", "extents"})
    ->Args({1, kExtentsDefault})
    ->Args({1 << 10, kExtentsDefault})
    ->Args({16 << 10, kExtentsDefault})
    ->Args({1 << 20, kExtentsDefault})
    ->Args({16 << 10, kExtentsMax})
    ->Args({1 << 20, kExtentsMax});

}  // namespace
}  // namespace tidemark
