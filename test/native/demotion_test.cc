// What a primary leaves behind that steps down or stops without its peer (R7, R18).
#include <doctest/doctest.h>

#include "fault_pair.h"

namespace tidemark::test {

namespace {

enum class Breaks : uint8_t { kBefore, kMeanwhile };

// b is made primary without force, and is written to.
void take_over(Pair& pair) {
  int error = 1;
  REQUIRE(pair.finish([&](Done done) { pair.b.volume().promote(false, done); }, &error));
  REQUIRE(error == 0);
  REQUIRE(pair.wait(pair.write(pair.b, 0, 4096, 2)));
}

void leave(Pair& pair, bool stops, Breaks breaks) {
  int error = 1;
  const auto done = [&](int result, const std::string&) { error = result; };
  if (breaks == Breaks::kBefore) pair.cut();
  if (stops) {
    pair.a.volume().stop(done);
  } else {
    pair.a.volume().demote(done);
  }
  if (breaks == Breaks::kMeanwhile) {
    pair.run_for(5'000);
    REQUIRE(error == 1);
    REQUIRE(pair.a.volume().status().role == Role::kPrimary);
    pair.cut();
  }
  REQUIRE(pair.run([&] { return error <= 0; }));
  REQUIRE(error == 0);
  if (!stops) return;
  pair.a.crash(false);
  pair.a.attach();
  REQUIRE((pair.state(pair.a).flags & kNodeCrashedPrimary) == 0);
}

}  // namespace

TEST_CASE("what the peer has not made durable has a generation of its own when a primary leaves") {
  for (const bool stops : {false, true}) {
    for (const Breaks breaks : {Breaks::kBefore, Breaks::kMeanwhile}) {
      for (const bool overtaken : {false, true}) {
        CAPTURE(stops);
        CAPTURE(int(breaks));
        CAPTURE(overtaken);
        Pair pair(test_seed(), Protocol::kA);
        pair.b.holds = is_flush;  // nothing is durable there
        Request* write = pair.write(pair.a, kMiB, 4096, 1);
        REQUIRE(pair.wait(write));
        REQUIRE(write->result == 0);
        const uint64_t shared = pair.state(pair.b).current;
        leave(pair, stops, breaks);
        pair.b.holds = nullptr;
        CHECK(pair.state(pair.a).current != shared);
        CHECK(pair.state(pair.a).bitmap == shared);
        CHECK(pair.state(pair.a).dirty_chunks == 1);
        REQUIRE(pair.idle());
        if (overtaken) take_over(pair);
        const Agreed agreed = decide(pair);
        CHECK(agreed.possible == !overtaken);  // a split brain, and not the end of what a completed
        if (overtaken) continue;
        CHECK(agreed.source == &pair.a);
        REQUIRE(pair.connect(agreed.source, agreed.full, Protocol::kA));
        REQUIRE(pair.run([&] { return pair.connected(); }));
        CHECK(pair.identical());
        CHECK(pair.b.data()[kMiB] == 1);
      }
    }
  }
}

TEST_CASE("a primary that leaves a peer behind which has everything makes no generation") {
  for (const bool stops : {false, true}) {
    // What the peer lacked once, and has by now, does not count.
    for (const bool resynced : {false, true}) {
      CAPTURE(stops);
      CAPTURE(resynced);
      Pair pair(test_seed(), Protocol::kA);
      if (resynced) {
        pair.b.holds = is_flush;
        REQUIRE(pair.wait(pair.write(pair.a, kMiB, 4096, 1)));
        pair.cut();
        pair.b.holds = nullptr;
        REQUIRE(pair.idle());
        REQUIRE(pair.connect(&pair.a, false, Protocol::kA));
        REQUIRE(pair.run([&] { return pair.connected(); }));
      }
      REQUIRE(pair.wait(pair.write(pair.a, 2 * kMiB, 4096, 1)));
      pair.run_for(100'000);
      leave(pair, stops, Breaks::kBefore);
      CHECK(pair.state(pair.a).current == pair.state(pair.b).current);
      REQUIRE(pair.idle());
      take_over(pair);
      CHECK(decide(pair).source == &pair.b);
    }
  }
}

// The one that is linked has all of it, and so the generation, too.
TEST_CASE("a primary that leaves one peer behind offers the generation to the one that is linked") {
  Pair pair(test_seed(), Protocol::kA);
  pair.cut();
  REQUIRE(pair.wait(pair.write(pair.a, 0, 4096, 1)));
  REQUIRE(pair.idle());
  pair.link_stranger(pair.a);  // in step with this generation, as the next two are
  REQUIRE(pair.wait(pair.write(pair.a, kMiB, 4096, 1)));
  pair.a.volume().link_stop("a stranger was here");
  const auto stranger = [&] { return pair.a.volume().handshake_state(pair.stranger); };
  REQUIRE(pair.run([&] { return stranger().idle; }));
  REQUIRE(stranger().bitmap == kGenerationNone);
  const uint64_t shared = stranger().current;
  REQUIRE(pair.connect(&pair.a, false, Protocol::kA));
  REQUIRE(pair.run([&] { return pair.connected(); }));
  REQUIRE(stranger().current == shared);
  REQUIRE(pair.end(pair.a, false) == 0);
  CHECK(stranger().current != shared);
  CHECK(stranger().bitmap == shared);
  REQUIRE(pair.run([&] { return pair.state(pair.b).current == stranger().current; }));
  REQUIRE(pair.run([&] { return pair.state(pair.a).bitmap == kGenerationNone; }));
  CHECK(pair.connected());
  CHECK(pair.identical());
}

// Everything is at the peer, and nothing more comes here: that copy is the newest there is.
TEST_CASE("a primary whose disk failed tells its peer nothing of being outdated as it leaves") {
  for (const Protocol protocol : {Protocol::kC, Protocol::kA}) {
    for (const bool meanwhile : {false, true}) {
      CAPTURE(meanwhile);
      FaultPair pair(OnIoError::kPassOn, protocol);
      const auto fail = [&] {
        pair.a.fail = [](const Io& io) { return is_flush(io) ? -EIO : 0; };
        Request* flush = pair.flush(pair.a);
        REQUIRE(pair.run([&] { return pair.disk(pair.a) == DiskState::kFailed; }));
        return flush;
      };
      Request* flush = meanwhile ? nullptr : fail();
      if (flush != nullptr) REQUIRE(pair.wait(flush));
      pair.b.holds = is_flush;
      if (meanwhile) REQUIRE(pair.wait(pair.write(pair.a, kMiB, 4096, 1)));
      int error = 1;
      pair.a.volume().outdate_peer([&](int result, const std::string&) { error = result; });
      pair.run_for(5'000);
      if (meanwhile) {
        REQUIRE(error == 1);  // it waits until the peer has everything
        fail();
        CHECK(error == 1);
      }
      pair.b.holds = nullptr;
      REQUIRE(pair.run([&] { return error <= 0; }));
      CHECK(error == 0);
      if (meanwhile) CHECK(pair.b.disk().durable()[kMiB] == 1);
      pair.run_for(10'000);
      CHECK(pair.disk(pair.b) == DiskState::kUpToDate);
      pair.cut();
      pair.a.volume().stop([](int, const std::string&) {});
      pair.run_for(10'000);
      pair.a.crash(false);
      pair.a.fail = nullptr;
      pair.a.attach();
      REQUIRE(pair.idle());
      CHECK(decide(pair).source == &pair.b);
      take_over(pair);
      CHECK(decide(pair).source == &pair.b);
    }
  }
}

}  // namespace tidemark::test
