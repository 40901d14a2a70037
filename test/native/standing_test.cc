// Which copies count as UpToDate: what a link, a resync and a promotion hand over (R11, R18).
#include <doctest/doctest.h>

#include "pair.h"

namespace tidemark::test {

namespace {

DiskState disk(Node& node) { return node.volume().status().disk; }

int promote(World& world, Node& node, bool force) {
  int error = 1;
  REQUIRE(world.finish([&](Done done) { node.volume().promote(force, std::move(done)); }, &error));
  return error;
}

// a, primary, leaves b in an orderly way: b is outdated.
void leave(Pair& pair) {
  int error = 1;
  REQUIRE(pair.finish([&](Done done) { pair.a.volume().outdate_peer(std::move(done)); }, &error));
  REQUIRE(error == 0);
  pair.cut();
  REQUIRE(pair.idle());
  REQUIRE(disk(pair.b) == DiskState::kOutdated);
}

// A third node with a blank disk, in the place of a.
struct Replaced : Pair {
  Replaced() : Pair(test_seed()) {
    leave(*this);
    a.crash(true);
    a.replace_disk();
    a.attach();
  }
};

}  // namespace

TEST_CASE("a blank disk that is filled from an Outdated copy is Outdated") {
  Replaced pair;
  REQUIRE(pair.connect(&pair.b, true));
  REQUIRE(pair.run([&] { return pair.connected(); }));
  CHECK(pair.identical());
  CHECK(disk(pair.a) == DiskState::kOutdated);
  CHECK(disk(pair.b) == DiskState::kOutdated);
  CHECK(pair.b.volume().status().peer_disk == DiskState::kOutdated);
  CHECK(promote(pair, pair.a, false) == -EPERM);
  // Neither has heard of anything newer from the other.
  pair.cut();
  REQUIRE(pair.idle());
  REQUIRE(pair.connect(nullptr, false));
  pair.run_for(10'000);
  CHECK(disk(pair.a) == DiskState::kOutdated);
  CHECK(disk(pair.b) == DiskState::kOutdated);
  // A person says that this is the data: then it is on both.
  CHECK(promote(pair, pair.a, true) == 0);
  CHECK(disk(pair.a) == DiskState::kUpToDate);
  REQUIRE(pair.run([&] { return disk(pair.b) == DiskState::kUpToDate; }));
  CHECK(pair.a.volume().status().peer_disk == DiskState::kUpToDate);
}

TEST_CASE("a source that becomes primary with force fills the target with what counts") {
  Replaced pair;
  REQUIRE(pair.connect(&pair.b, true));
  REQUIRE(pair.run([&] { return pair.b.volume().status().connection == Connection::kSyncSource; }));
  CHECK(promote(pair, pair.b, true) == 0);
  REQUIRE(pair.run([&] { return pair.connected(); }));
  CHECK(pair.identical());
  CHECK(disk(pair.a) == DiskState::kUpToDate);
  CHECK(disk(pair.b) == DiskState::kUpToDate);
}

TEST_CASE("a source that becomes primary with force while its target ends the resync is followed") {
  Replaced pair;
  REQUIRE(pair.connect(&pair.b, true));
  REQUIRE(pair.run([&] { return disk(pair.a) == DiskState::kOutdated; }));
  pair.a.holds = is_meta_write;
  REQUIRE(pair.a.volume().status().connection == Connection::kSyncTarget);
  CHECK(promote(pair, pair.b, true) == 0);
  REQUIRE(pair.run([&] { return pair.a.volume().status().peer_role == Role::kPrimary; }));
  pair.a.holds = nullptr;
  REQUIRE(pair.run([&] { return pair.connected(); }));
  pair.run_for(10'000);
  CHECK(disk(pair.a) == DiskState::kUpToDate);
  pair.a.crash(true);
  pair.a.attach();
  CHECK(disk(pair.a) == DiskState::kUpToDate);
}

TEST_CASE("an Outdated copy in step with an UpToDate one is UpToDate") {
  Pair pair(test_seed());
  leave(pair);
  REQUIRE(pair.connect(nullptr, false));
  pair.run_for(10'000);
  CHECK(disk(pair.b) == DiskState::kUpToDate);
  CHECK(pair.a.volume().status().peer_disk == DiskState::kUpToDate);
}

TEST_CASE("a copy whose flush failed alone stays not UpToDate through a link with an older one") {
  Pair pair(test_seed());
  pair.cut();
  REQUIRE(pair.wait(pair.write(pair.a, 0, 4096, 1)));
  pair.a.fail = [](const Io& io) {
    return io.target == IoTarget::kData && is_flush(io) ? -EIO : 0;
  };
  Request* flush = pair.flush(pair.a);
  REQUIRE(pair.wait(flush));
  REQUIRE(flush->result == -EIO);
  pair.run_for(10'000);
  pair.a.fail = nullptr;
  pair.a.crash(false);
  pair.a.attach();
  REQUIRE(disk(pair.a) == DiskState::kConsistent);
  REQUIRE(pair.connect(&pair.a, false));
  REQUIRE(pair.run([&] { return pair.connected(); }));
  CHECK(pair.identical());
  CHECK(disk(pair.a) == DiskState::kConsistent);
  CHECK(disk(pair.b) == DiskState::kConsistent);
  for (Node* node : {&pair.a, &pair.b}) CHECK(promote(pair, *node, false) == -EPERM);
}

// Why rule 38 is not for protocol A: the copy whose flush failed is the only one that has what a
// flush before it was for.
TEST_CASE(
    "what was flushed under protocol A is on one disk only, and outlasts that one's failed flush") {
  Pair pair(test_seed(), Protocol::kA);
  pair.limit([](Limits& limits) { limits.flush_interval_us = 50'000; });
  pair.wire_up = false;  // nothing gets there
  REQUIRE(pair.wait(pair.write(pair.a, kMiB, 4096, 1)));
  Request* flush = pair.flush(pair.a);
  REQUIRE(pair.wait(flush));
  REQUIRE(flush->result == 0);
  pair.cut();
  pair.a.fail = [](const Io& io) { return is_flush(io) ? -EIO : 0; };
  REQUIRE(pair.run([&] { return disk(pair.a) == DiskState::kFailed; }));
  pair.run_for(10'000);
  pair.a.fail = nullptr;
  pair.a.crash(true);
  pair.a.attach();
  REQUIRE(disk(pair.a) == DiskState::kConsistent);
  REQUIRE(disk(pair.b) == DiskState::kUpToDate);
  REQUIRE((pair.state(pair.a).flags & kNodeCrashedPrimary) != 0);
  REQUIRE(pair.state(pair.a).current == pair.state(pair.b).current);
  REQUIRE(pair.a.data()[kMiB] == 1);
  REQUIRE(pair.b.data()[kMiB] != 1);
  REQUIRE(pair.connect(&pair.a, false, Protocol::kA));  // rule 40
  REQUIRE(pair.run([&] { return pair.connected(); }));
  CHECK(pair.identical());
  CHECK(pair.b.data()[kMiB] == 1);
  for (Node* node : {&pair.a, &pair.b}) {
    CHECK(disk(*node) == DiskState::kConsistent);
    CHECK(promote(pair, *node, false) == -EPERM);
  }
}

TEST_CASE("that a flush failed is noted as soon as the metadata can be written again") {
  Pair pair(test_seed());
  pair.cut();
  pair.limit([](Limits& limits) { limits.flush_interval_us = 50'000; });
  REQUIRE(pair.wait(pair.write(pair.a, 0, 4096, 1)));
  pair.a.fail = [](const Io& io) { return is_flush(io) || is_meta_write(io) ? -EIO : 0; };
  Request* flush = pair.flush(pair.a);
  REQUIRE(pair.wait(flush));
  REQUIRE(flush->result == -EIO);
  pair.run_for(200'000);
  pair.a.fail = [](const Io& io) { return is_flush(io) ? -EIO : 0; };
  pair.run_for(200'000);
  pair.a.fail = nullptr;
  pair.a.crash(false);
  pair.a.attach();
  CHECK(disk(pair.a) == DiskState::kConsistent);
}

TEST_CASE("a peer hears of a demotion that came between the handshake and the link") {
  Pair pair(test_seed());
  pair.cut();
  int error = 1;
  pair.when_prepared = [&] {
    REQUIRE(pair.finish([&](Done done) { pair.a.volume().demote(std::move(done)); }, &error));
  };
  REQUIRE(pair.connect(nullptr, false));
  CHECK(error == 0);
  REQUIRE(pair.run([&] { return pair.b.volume().status().peer_role == Role::kSecondary; }));
  CHECK(promote(pair, pair.b, false) == 0);
}

}  // namespace tidemark::test
