// The generation that the source of a resync offers at its end, and those that come meanwhile.
#include <doctest/doctest.h>

#include <algorithm>

#include "pair.h"

namespace tidemark::test {
namespace {

// a crashes as primary, comes back as the source of a resync, and is promoted in the middle of it.
void promote_as_source(Pair& pair) {
  REQUIRE(pair.wait(pair.write(pair.a, 0, 4096, 1)));
  pair.cut();
  pair.a.crash(true);
  pair.a.attach();
  REQUIRE(pair.connect(&pair.a, false));
  int error = 1;
  REQUIRE(pair.finish([&](Done done) { pair.a.volume().promote(false, done); }, &error));
  REQUIRE(error == 0);
}

}  // namespace

// While the target's answer to the offered generation is on its way a write makes a newer one, for
// a third node's sake; then the link breaks.
TEST_CASE("a generation that was offered stays known though a newer one came and the link broke") {
  Pair pair(test_seed());
  pair.cut();
  REQUIRE(pair.wait(pair.write(pair.a, 0, 4096, 1)));
  pair.bind_stranger(pair.a);  // shares the generation that the next link offers
  REQUIRE(pair.connect(&pair.a, false));
  const uint64_t offered = pair.state(pair.a).current;
  REQUIRE(pair.run([&] { return (pair.state(pair.a).slot_flags & kSlotSyncEnding) != 0; }));
  pair.a.receive_bytes = 0;
  REQUIRE(pair.run([&] { return pair.state(pair.b).current == offered; }));
  Request* request = pair.write(pair.a, kMiB, 4096, 2);
  REQUIRE(pair.run([&] { return pair.state(pair.a).current != offered; }));
  pair.cut();
  REQUIRE(pair.wait(request));
  REQUIRE(pair.wait(pair.write(pair.a, 2 * kMiB, 4096, 3)));
  const HandshakeState a = pair.state(pair.a);
  const bool known =
      a.bitmap == offered || std::count(a.history.begin(), a.history.end(), offered) != 0;
  CHECK(known);
}

// The end of a resync is being written down when the first write of a new primary makes another
// generation: what the target takes over then is that one, and its answer gets lost.
TEST_CASE(
    "a generation that was made while the end of a resync was written down is in doubt, too") {
  Pair pair(test_seed());
  promote_as_source(pair);
  REQUIRE(pair.a.volume().status().connection == Connection::kSyncSource);
  REQUIRE(pair.state(pair.a).bitmap == 0);
  REQUIRE(pair.run([&] { return (pair.state(pair.a).slot_flags & kSlotSyncEnding) != 0; }));
  const uint64_t shared = pair.state(pair.a).current;
  Request* first = pair.write(pair.a, 0, 4096, 2);
  REQUIRE(pair.run([&] { return pair.state(pair.a).current != shared; }));
  pair.a.receive_bytes = 0;
  REQUIRE(pair.run([&] { return pair.state(pair.b).current != shared; }));
  pair.cut();
  pair.a.receive_bytes = SIZE_MAX;
  REQUIRE(pair.wait(first));
  REQUIRE(pair.wait(pair.write(pair.a, 4096, 4096, 3)));
  CHECK(pair.state(pair.a).current != pair.state(pair.b).current);
}

// The target of a resync takes over what was offered at its end, and counts from then on; the first
// write of a new primary made another generation meanwhile. Were that write acknowledged before
// the target has its generation, too, a third node with the one before would overwrite it.
TEST_CASE(
    "a write under a generation that was made while the end of a resync was offered waits for the "
    "target to have it") {
  Pair pair(test_seed());
  promote_as_source(pair);
  const uint64_t shared = pair.state(pair.a).current;
  // The offer has come, and is being written down there.
  bool offered = false;
  pair.b.holds = [&offered](const Io& io) {
    offered = offered || is_meta_write(io);
    return is_meta_write(io);
  };
  REQUIRE(pair.run([&] { return offered; }));
  REQUIRE(pair.a.volume().status().connection == Connection::kSyncSource);
  Request* first = pair.write(pair.a, 0, 4096, 2);
  pair.run_for(100'000);
  CHECK(pair.state(pair.a).current != shared);
  CHECK(first->result > 0);
  pair.b.holds = nullptr;
  REQUIRE(pair.wait(first));
  CHECK(pair.state(pair.a).current == pair.state(pair.b).current);
  CHECK(pair.state(pair.a).current != shared);
}

}  // namespace tidemark::test
