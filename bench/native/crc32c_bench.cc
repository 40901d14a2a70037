// CRC32C: of a header, of a small write, of larger ones; and what a CPU without the instruction
// would need.
#include <benchmark/benchmark.h>

#include <cstring>
#include <vector>

#include "core/crc32c.h"

namespace tidemark {
namespace {

void sizes(benchmark::internal::Benchmark* bench) {
  bench->ArgName("bytes")->Arg(44)->Arg(512)->Arg(4096)->Arg(64 << 10)->Arg(1 << 20);
}

void crc(benchmark::State& state) {
  const std::vector<uint8_t> data(static_cast<size_t>(state.range(0)), 0x5a);
  for (auto _ : state) benchmark::DoNotOptimize(crc32c(0, data.data(), data.size()));
  state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(crc)->Apply(sizes);

void crc_portable(benchmark::State& state) {
  const std::vector<uint8_t> data(static_cast<size_t>(state.range(0)), 0x5a);
  for (auto _ : state) benchmark::DoNotOptimize(crc32c_portable(0, data.data(), data.size()));
  state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(crc_portable)->Apply(sizes);

// A yardstick that depends on the same memory: copying as much.
void copy(benchmark::State& state) {
  const std::vector<uint8_t> data(static_cast<size_t>(state.range(0)), 0x5a);
  std::vector<uint8_t> out(data.size());
  for (auto _ : state) {
    std::memcpy(out.data(), data.data(), data.size());
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(copy)->Apply(sizes);

}  // namespace
}  // namespace tidemark
