// The activity log's operations: a write that finds its extent hot, and one that needs a
// transaction.
#include <benchmark/benchmark.h>

#include <array>
#include <cstdlib>

#include "core/activity_log.h"
#include "core/log_block.h"
#include "volumes.h"

namespace tidemark {
namespace {

constexpr uint64_t kExtents = 16 * kTiB / kExtentBytesDefault;

void sizes(benchmark::internal::Benchmark* bench) {
  bench->ArgName("extents")->Arg(kExtentsDefault)->Arg(kExtentsMax);
}

void make_hot(ActivityLog* log, uint32_t extent) {
  if (log->begin(extent, extent, false) == ActivityLog::Begin::kPending) {
    log->start_transaction();
    log->transaction_done(true);
    if (log->begin(extent, extent, false) != ActivityLog::Begin::kHot) std::abort();
  }
  log->release(extent, extent, ActivityLog::Hold::kLocal);
}

// A connected write's whole way through the log, all slots in use.
void hit(benchmark::State& state) {
  const auto extents = static_cast<uint32_t>(state.range(0));
  ActivityLog log(extents, kExtents, 1);
  for (uint32_t extent = 0; extent < extents; ++extent) make_hot(&log, extent * 3);
  Scatter scatter(extents);
  const auto order = scatter.take(4096);
  size_t at = 0;
  for (auto _ : state) {
    const auto extent = static_cast<uint32_t>(order[at++ % order.size()]) * 3;
    benchmark::DoNotOptimize(log.begin(extent, extent, true));
    log.release(extent, extent, ActivityLog::Hold::kLocal);
    log.release(extent, extent, ActivityLog::Hold::kPeer);
  }
}
BENCHMARK(hit)->Apply(sizes);

// Always another extent, so that each evicts the oldest: begin, transaction, begin again, release.
void miss(benchmark::State& state) {
  const auto extents = static_cast<uint32_t>(state.range(0));
  ActivityLog log(extents, kExtents, 1);
  uint32_t extent = 0;
  for (; extent < extents; ++extent) make_hot(&log, extent);
  for (auto _ : state) {
    extent = (extent + 1) % (4 * extents);
    make_hot(&log, extent);
  }
}
BENCHMARK(miss)->Apply(sizes);

// As many misses as one transaction takes. The time is that of one miss.
void miss_shared(benchmark::State& state) {
  const auto extents = static_cast<uint32_t>(state.range(0));
  ActivityLog log(extents, kExtents, 1);
  uint32_t next = 0;
  for (; next < extents; ++next) make_hot(&log, next);
  while (state.KeepRunningBatch(kLogUpdates)) {
    const uint32_t first = next;
    for (uint32_t i = 0; i < kLogUpdates; ++i) {
      benchmark::DoNotOptimize(log.begin(first + i, first + i, false));
    }
    log.start_transaction();
    log.transaction_done(true);
    for (uint32_t i = 0; i < kLogUpdates; ++i) make_hot(&log, first + i);
    next = (next + kLogUpdates) % (4 * extents);
  }
}
BENCHMARK(miss_shared)->Apply(sizes);

void encode_transaction(benchmark::State& state) {
  ActivityLog log(kExtentsDefault, kExtents, 1);
  for (uint32_t i = 0; i < kLogUpdates; ++i) log.begin(i, i, false);
  const LogTransaction& transaction = log.start_transaction();
  std::array<uint8_t, kBlockSize> image;
  for (auto _ : state) {
    encode_log_block({1, 0, kExtentsDefault}, transaction, image);
    benchmark::DoNotOptimize(image);
  }
}
BENCHMARK(encode_transaction);

}  // namespace
}  // namespace tidemark
