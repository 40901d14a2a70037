// A resync and an application that share a send ring with room for neither.
#include <doctest/doctest.h>

#include <vector>

#include "pair.h"

namespace tidemark::test {

namespace {

constexpr uint64_t kWriteBytes = 64u << 10;
constexpr uint64_t kRingBytes = 640u << 10;
constexpr uint64_t kSlowness = 8;  // of the wire, against the disks
constexpr uint64_t kWriters = 64;  // of which the send ring holds eight at a time

// a has chunks of its own, and an application that always has more to send than there is room for.
struct CrowdedPair : Pair {
  CrowdedPair() : Pair(test_seed()) {
    cut();
    for (uint64_t at = 12 * kMiB; at < 14 * kMiB; at += kWriteBytes)
      REQUIRE(wait(write(a, at, kWriteBytes, static_cast<uint8_t>(at / kWriteBytes))));
    a.wire_bytes = kRingBytes;
  }
  // Never fewer than all writers are at it, until the end.
  bool crowd(const std::function<bool()>& end, uint64_t steps = 100'000) {
    if (crowded.empty()) crowded.resize(kWriters, nullptr);
    return run(
        [&] {
          wire_up = ++turns % kSlowness == 0;
          for (uint64_t i = 0; i < kWriters; ++i) {
            if (crowded[i] != nullptr && crowded[i]->result > 0) continue;
            crowded[i] = write(a, i * kWriteBytes, kWriteBytes, static_cast<uint8_t>(++rounds));
          }
          return end();
        },
        steps);
  }
  bool quiet() {
    wire_up = true;
    return run([&] {
      return std::all_of(crowded.begin(), crowded.end(),
                         [](const Request* each) { return each->result <= 0; });
    });
  }
  std::vector<Request*> crowded;
  uint64_t rounds = 0;
  uint64_t turns = 0;
};

}  // namespace

TEST_CASE("a resync gets its turn beside an application that always fills the send ring") {
  CrowdedPair pair;
  REQUIRE(pair.connect(&pair.a, false));
  CHECK(pair.crowd([&] { return pair.connected(); }));
  REQUIRE(pair.quiet());
  CHECK(pair.identical());
}

TEST_CASE(
    "a write to what a waiting piece of a resync has read is not kept waiting by other writes") {
  CrowdedPair pair;
  REQUIRE(pair.connect(&pair.a, false));
  REQUIRE(
      pair.crowd([&] { return pair.a.volume().status().connection == Connection::kSyncSource; }));
  REQUIRE(pair.crowd([&, until = pair.now_us + 20'000] { return pair.now_us > until; }));
  Request* overlapping = pair.write(pair.a, 12 * kMiB, kWriteBytes, 99);
  CHECK(pair.crowd([&] { return overlapping->result <= 0; }));
  CHECK(overlapping->result == 0);
  REQUIRE(pair.crowd([&] { return pair.connected(); }));
  REQUIRE(pair.quiet());
  CHECK(pair.identical());
}

}  // namespace tidemark::test
