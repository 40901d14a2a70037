// Disks that are let go of at random moments, while links break and daemons start anew.
#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <vector>

#include "fault_pair.h"

namespace tidemark::test {

namespace {

// A writer that knows what each block may hold, while disks fail and links break.
struct Ordeal : FaultPair {
  using FaultPair::FaultPair;
  struct Out {
    Request* request;
    uint64_t block;
    uint8_t fill;
  };
  std::vector<Out> out;
  std::map<uint64_t, std::vector<uint8_t>> may;  // the first is known to have been there
  uint64_t submitted = 0;

  void learn() {
    for (auto it = out.begin(); it != out.end();) {
      if (it->request->result > 0) {
        ++it;
        continue;
      }
      auto& values = may[it->block];
      const bool read = it->request->op == Op::kRead;
      if (it->request->result == 0 && read) {
        const uint8_t is = it->request->buffer[0];
        if (std::count(values.begin(), values.end(), is) == 0)
          FAIL("block " << it->block << " was read as " << int(is));
        CHECK(holds_only(it->request, is));
      } else if (it->request->result == 0) {
        values.erase(values.begin(), std::find(values.begin(), values.end(), it->fill));
      }
      it = out.erase(it);
    }
  }
  void submit_one() {
    learn();
    const uint64_t kind = random.below(10);
    const uint64_t block = random.below(a.size() / 4096);
    ++submitted;
    if (kind == 0) {
      flush(a);
      return;
    }
    if (std::any_of(out.begin(), out.end(), [&](const Out& one) { return one.block == block; })) {
      --submitted;
      return;
    }
    if (may.find(block) == may.end()) may[block] = {b.data()[block * 4096]};
    const uint8_t fill = static_cast<uint8_t>(1 + random.below(255));
    if (kind < 4) {
      out.push_back({read(a, block * 4096, 4096), block, 0});
      return;
    }
    out.push_back({write(a, block * 4096, 4096, fill, kind == 4 ? kRequestFua : 0), block, fill});
    may[block].push_back(fill);
  }
  void steps(uint64_t count) {
    for (; count > 0; --count) step();
  }
  // The link breaks, perhaps because the peer died.
  void part() {
    wire_up = false;
    if (random.chance(2)) b.crash(random.chance(2));
    a.volume().link_stop("cut");
    if (b.up()) b.volume().link_stop("cut");
    if (!b.up()) b.attach();
  }
  void join() {
    if (disk(a) == DiskState::kFailed) return;
    step();  // a daemon that was just started learns the time
    REQUIRE(idle());
    Agreed agreed;
    if (disk(a) == DiskState::kDiskless) {
      REQUIRE(state(a).current == state(b).current);
      REQUIRE(disk(b) != DiskState::kInconsistent);
    } else {
      agreed = decide(*this);
      REQUIRE(agreed.possible);
      if (a.volume().status().role == Role::kPrimary && agreed.source != nullptr)
        REQUIRE(agreed.source == &a);
    }
    if (connect(agreed.source, agreed.full, protocol)) return;
    REQUIRE(disk(a) == DiskState::kFailed);  // on the way
    cut();
  }
  void breaks(uint64_t kind) {
    a.fail = [this, kind](const Io& io) {
      const bool fails = kind == 1   ? true
                         : kind == 2 ? is_data(io)
                         : kind == 3 ? !is_data(io)
                         : kind == 4 ? is_data(io) && io.kind != IoKind::kFlush && random.chance(8)
                                     : is_flush(io);
      return fails ? -EIO : 0;
    };
  }
};

}  // namespace

TEST_CASE("disks that fail at random moments under detach lose nothing that was completed") {
  uint64_t detached = 0;
  for (uint64_t round = 0; round < 60; ++round) {
    const uint64_t seed = test_seed() * 1000 + round;
    INFO("seed " << seed << " round " << round);
    Ordeal pair(OnIoError::kDetach, round % 2 == 0 ? Protocol::kC : Protocol::kA, round % 3 == 0,
                seed);
    Random& random = pair.random;
    for (int life = 0; life < 4; ++life) {
      INFO("life " << life);
      const uint64_t kind = random.below(6);
      const uint64_t when = random.below(40);
      for (uint64_t i = 0; i < 40; ++i) {
        if (i == when && kind != 0) pair.breaks(kind);
        pair.submit_one();
        pair.steps(random.below(80));
        if (random.chance(25)) {
          pair.part();
          pair.steps(random.below(300));
          pair.submit_one();
          pair.join();
        }
      }
      if (pair.a.volume().status().connection == Connection::kStandAlone) pair.join();
      REQUIRE(pair.run([&] { return pair.a.volume().status().requests_in_flight == 0; }));
      pair.learn();
      CHECK(pair.out.empty());
      CHECK(pair.a.completed.size() == pair.submitted);
      if (pair.disk(pair.a) == DiskState::kDiskless) ++detached;

      // The daemon starts anew with the disk, which works again.
      pair.wire_up = false;
      const bool power = pair.disk(pair.a) == DiskState::kDiskless && random.chance(2);
      pair.a.crash(power);
      pair.a.fail = nullptr;
      pair.b.volume().link_stop("cut");
      pair.a.attach();
      pair.join();
      REQUIRE(pair.run([&] { return pair.connected(); }));
      REQUIRE(pair.identical());
      for (const auto& [block, values] : pair.may) {
        const uint8_t is = pair.b.data()[block * 4096];
        if (std::count(values.begin(), values.end(), is) == 0)
          FAIL("block " << block << " holds " << int(is) << ", expected " << int(values[0]));
      }
      pair.may.clear();
      // A flush that failed while nobody could take over leaves it to a person (R11).
      const bool force = pair.disk(pair.a) == DiskState::kConsistent;
      int error = 1;
      REQUIRE(pair.finish([&](Done done) { pair.a.volume().promote(force, done); }, &error));
      REQUIRE(error == 0);
      pair.limit([](Limits& limits) { limits.on_io_error = OnIoError::kDetach; });
      pair.a.completed.clear();
      pair.b.completed.clear();
      pair.submitted = 0;
    }
  }
  CHECK(detached > 60);
}

}  // namespace tidemark::test
