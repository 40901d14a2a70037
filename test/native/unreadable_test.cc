// Resyncs whose source cannot read, or write, its own disk.
#include <doctest/doctest.h>

#include <algorithm>

#include "pair.h"

namespace tidemark::test {

namespace {

// a wrote to chunks of its own while the link was cut; some of them it cannot read.
struct UnreadPair : Pair {
  UnreadPair() : Pair(test_seed()) {
    cut();
    for (const uint64_t at : {kMiB, kMiB + 4096, kMiB + 8192, 5 * kMiB, 9 * kMiB}) {
      REQUIRE(wait(write(a, at, 4096, static_cast<uint8_t>(1 + at / 4096))));
    }
    REQUIRE(state(a).dirty_chunks == 5);
  }
  void bad_at(uint64_t begin, uint64_t end) {
    a.fail = [begin, end](const Io& io) {
      const bool hit = io.offset < end && begin < io.offset + io.length;
      return io.target == IoTarget::kData && io.kind == IoKind::kRead && hit ? -EIO : 0;
    };
  }
  ResyncStatus resync() { return a.volume().status().resync; }
  size_t downs() {
    return static_cast<size_t>(
        std::count_if(a.events.begin(), a.events.end(),
                      [](const Event& event) { return event.kind == EventKind::kLinkDown; }));
  }
};

}  // namespace

TEST_CASE("what a source cannot read stays marked, and the rest is copied over the same link") {
  UnreadPair pair;
  pair.bad_at(kMiB + 4096, kMiB + 8192);
  const size_t downs = pair.downs();
  REQUIRE(pair.connect(&pair.a, false));
  REQUIRE(pair.run([&] { return pair.resync().unreadable_chunks == 1; }));
  pair.run_for(500'000);
  CHECK(pair.downs() == downs);
  CHECK(pair.a.volume().status().connection == Connection::kSyncSource);
  CHECK(pair.b.volume().status().connection == Connection::kSyncTarget);
  CHECK(pair.state(pair.a).dirty_chunks == 1);
  CHECK(pair.state(pair.b).dirty_chunks == 1);
  CHECK(pair.b.volume().status().disk == DiskState::kInconsistent);
  CHECK(pair.a.volume().status().disk == DiskState::kUpToDate);
  // It is tried again, and writing goes on meanwhile.
  Request* other = pair.write(pair.a, 7 * kMiB, 4096, 7);
  REQUIRE(pair.wait(other));
  CHECK(other->result == 0);
  pair.run_for(3'000'000);
  CHECK(pair.state(pair.a).dirty_chunks == 1);
  pair.a.fail = nullptr;
  REQUIRE(pair.run([&] { return pair.connected(); }));
  CHECK(pair.downs() == downs);
  CHECK(pair.identical());
  CHECK(pair.b.volume().status().disk == DiskState::kUpToDate);
  CHECK(pair.resync().unreadable_chunks == 0);
}

TEST_CASE("a source that can read nothing keeps its link, and tries less and less often") {
  UnreadPair pair;
  pair.bad_at(0, UINT64_MAX);
  REQUIRE(pair.connect(&pair.a, false));
  REQUIRE(pair.run([&] { return pair.resync().unreadable_chunks == 5; }));
  const uint64_t before = pair.a.volume().status().disk_errors;
  pair.run_for(20'000'000);
  CHECK(pair.a.volume().status().connection == Connection::kSyncSource);
  // After 1, 2, 4 and 8 s, five chunks each time.
  CHECK(pair.a.volume().status().disk_errors - before == 20);
  CHECK(pair.state(pair.b).dirty_chunks == 5);
  pair.cut();
  REQUIRE(pair.idle());
}

TEST_CASE("a link that ends while its source cannot read leaves nothing behind") {
  for (uint64_t steps = 0; steps < 400; steps += 7) {
    UnreadPair pair;
    pair.bad_at(kMiB, kMiB + 8192);
    REQUIRE(pair.connect(&pair.a, false));
    for (uint64_t step = 0; step < steps; ++step) pair.step();
    pair.cut();
    REQUIRE(pair.idle());
    pair.a.fail = nullptr;
    REQUIRE(pair.connect(&pair.a, false));
    REQUIRE(pair.run([&] { return pair.connected(); }));
    CHECK(pair.identical());
  }
}

TEST_CASE("a source whose metadata fail at the end of a resync ends the link and says why") {
  UnreadPair pair;
  REQUIRE(pair.connect(&pair.a, false));
  pair.a.fail = [](const Io& io) { return is_meta_write(io) ? -EIO : 0; };
  REQUIRE(pair.run([&] { return pair.a.volume().status().connection == Connection::kStandAlone; }));
  CHECK(pair.a.volume().status().disk == DiskState::kFailed);
  const auto down =
      std::find_if(pair.a.events.rbegin(), pair.a.events.rend(),
                   [](const Event& event) { return event.kind == EventKind::kLinkDown; });
  REQUIRE(down != pair.a.events.rend());
  CHECK(down->text.find("resync cannot end") != std::string::npos);
  CHECK(pair.b.volume().status().disk == DiskState::kInconsistent);
}

TEST_CASE("a chunk of a resync is clear when it is durable there, and marked again by what fails") {
  Pair pair(test_seed());
  pair.cut();
  REQUIRE(pair.wait(pair.write(pair.a, 0, kMiB, 3)));  // one run, of several pieces
  REQUIRE(pair.state(pair.a).dirty_chunks == 256);
  pair.a.holds = [](const Io& io) {
    return io.target == IoTarget::kData && io.kind == IoKind::kRead && io.offset >= kMiB / 2;
  };
  REQUIRE(pair.connect(&pair.a, false));
  REQUIRE(pair.run([&] { return pair.state(pair.a).dirty_chunks <= 128; }));
  CHECK(pair.state(pair.a).dirty_chunks == 128);
  // R9: nothing of the run is cleared any more, and it is copied again.
  pair.a.fail_next_write = -EIO;
  Request* failed = pair.write(pair.a, 8192, 4096, 4);
  REQUIRE(pair.run([&] { return failed->result <= 0; }));
  CHECK(pair.state(pair.a).dirty_chunks == 129);
  pair.a.holds = nullptr;
  REQUIRE(pair.run([&] { return pair.connected(); }));
  CHECK(pair.state(pair.a).dirty_chunks == 0);
  CHECK(pair.identical());
}

}  // namespace tidemark::test
