// The volume in a simulated world of two nodes: replication, apart, resync, crashes.
#include <doctest/doctest.h>

#include <algorithm>

#include "core/frame.h"
#include "pair.h"

namespace tidemark::test {
namespace {

bool has_event(const Node& node, EventKind kind) {
  for (const Event& event : node.events) {
    if (event.kind == kind) return true;
  }
  return false;
}

}  // namespace

TEST_CASE("a fresh pair is filled by a full resync and then shares one generation") {
  Pair pair(test_seed());
  const HandshakeState a = pair.a.volume().handshake_state(pair.b.id());
  const HandshakeState b = pair.b.volume().handshake_state(pair.a.id());
  CHECK(a.current == b.current);
  CHECK(a.bitmap == 0);
  CHECK(b.bitmap == 0);
  CHECK(a.dirty_chunks == 0);
  CHECK(b.dirty_chunks == 0);
  CHECK(b.disk == DiskState::kUpToDate);
  CHECK(has_event(pair.a, EventKind::kSyncFinished));
}

TEST_CASE("a write of any alignment completes on both disks under protocol C") {
  Pair pair(test_seed());
  const struct {
    uint64_t offset, length;
  } cases[] = {{0, 4096},
               {512, 512},
               {1, 1},
               {4095, 2},
               {3 * kMiB - 700, 2 * kMiB + 1400},
               {pair.a.size() - 512, 512},
               {pair.a.size() - 1, 1}};
  uint8_t fill = 1;
  for (const auto& one : cases) {
    Request* request = pair.write(pair.a, one.offset, one.length, fill);
    REQUIRE(pair.wait(request));
    CHECK(request->result == 0);
    for (Node* node : {&pair.a, &pair.b}) {
      CHECK(node->data()[one.offset] == fill);
      CHECK(node->data()[one.offset + one.length - 1] == fill);
    }
    CHECK(pair.identical());
    ++fill;
  }
  CHECK(pair.a.requests.size() == pair.a.completed.size());
}

TEST_CASE("zeroes and discards of any alignment leave zeroes on both disks") {
  Pair pair(test_seed());
  REQUIRE(pair.wait(pair.write(pair.a, 0, 4 * kMiB, 7)));
  Request* zeroes = pair.write(pair.a, 700, 2 * kMiB + 100, 0, 0, Op::kWriteZeroes);
  Request* discard = pair.write(pair.a, 3 * kMiB, 64 * 1024, 0, kRequestFua, Op::kDiscard);
  REQUIRE(pair.wait(zeroes));
  REQUIRE(pair.wait(discard));
  for (uint64_t at = 0; at < 4 * kMiB; ++at) {
    const bool zero =
        (at >= 700 && at < 700 + 2 * kMiB + 100) || (at >= 3 * kMiB && at < 3 * kMiB + 64 * 1024);
    if (pair.a.data()[at] != (zero ? 0 : 7)) FAIL("byte " << at);
  }
  CHECK(pair.identical());
}

TEST_CASE("requests outside the volume, or on a secondary, are refused and change nothing") {
  Pair pair(test_seed());
  CHECK(pair.write(pair.a, pair.a.size(), 512, 1)->result == -ENOSPC);
  CHECK(pair.write(pair.a, pair.a.size() - 512, 1024, 1)->result == -ENOSPC);
  CHECK(pair.write(pair.a, UINT64_MAX - 100, 512, 1)->result == -ENOSPC);
  CHECK(pair.write(pair.a, pair.a.size(), 512, 1, 0, Op::kRead)->result == -EINVAL);
  CHECK(pair.write(pair.b, 0, 512, 1)->result == -EIO);
  CHECK(pair.identical());
}

TEST_CASE(
    "apart, exactly the chunks written since the flush are dirty, and the resync copies those and "
    "no others") {
  Pair pair(test_seed());
  REQUIRE(pair.wait(pair.write(pair.a, 0, 5 * kMiB, 1)));
  REQUIRE(pair.wait(pair.flush(pair.a)));
  pair.cut();
  const uint64_t before = pair.a.volume().handshake_state(pair.b.id()).current;
  REQUIRE(pair.wait(pair.write(pair.a, 0, 4096, 2)));
  REQUIRE(pair.wait(pair.write(pair.a, 10 * 4096 + 100, 4096, 3)));  // touches two chunks
  REQUIRE(pair.wait(pair.write(pair.a, 20 * kMiB, 64 * 1024, 4)));   // 16 chunks
  REQUIRE(pair.wait(pair.write(pair.a, 20 * kMiB, 4096, 5)));        // again
  CHECK(pair.state(pair.a).dirty_chunks == 19);
  const HandshakeState apart = pair.a.volume().handshake_state(pair.b.id());
  CHECK(apart.current != before);
  CHECK(apart.bitmap == before);
  REQUIRE(pair.connect(&pair.a, false));
  REQUIRE(pair.run([&] { return pair.connected(); }));
  CHECK(pair.a.volume().status().resync.chunks_sent == 19);
  CHECK(pair.identical());
  CHECK(pair.state(pair.a).dirty_chunks == 0);
  CHECK(pair.state(pair.b).dirty_chunks == 0);
  CHECK(pair.b.volume().handshake_state(pair.a.id()).current == apart.current);
}

TEST_CASE("writes under way when the link breaks complete and are marked") {
  Pair pair(test_seed());
  std::vector<Request*> requests;
  for (uint64_t i = 0; i < 40; ++i)
    requests.push_back(pair.write(pair.a, i * 512 * 1024, 4096, static_cast<uint8_t>(i + 1)));
  for (int i = 0; i < 60; ++i) pair.step();
  pair.cut();
  for (Request* request : requests) {
    REQUIRE(pair.wait(request));
    CHECK(request->result == 0);
  }
  REQUIRE(pair.run([&] { return pair.a.volume().handshake_state(pair.b.id()).idle; }));
  for (uint64_t i = 0; i < 40; ++i) {
    // Every chunk in which the copies differ is marked.
    if (std::memcmp(pair.a.data() + i * 512 * 1024, pair.b.data() + i * 512 * 1024, 4096) != 0) {
      CHECK(pair.state(pair.a).dirty_chunks > 0);
    }
  }
  REQUIRE(pair.connect(&pair.a, false));
  REQUIRE(pair.run([&] { return pair.connected(); }));
  CHECK(pair.identical());
}

TEST_CASE("suspended requests that are dropped fail, and leave neither data nor a generation") {
  Pair pair(test_seed());
  pair.cut();
  REQUIRE(pair.run([&] { return !pair.connected(); }));
  Volume& volume = pair.a.volume();
  const uint64_t current = volume.status().current;
  volume.suspend("the peer is primary");
  Request* write = pair.write(pair.a, 0, 4096, 9);
  Request* flush = pair.flush(pair.a);
  CHECK(write->result > 0);
  volume.drop_suspended();
  CHECK(write->result == -EIO);
  CHECK(flush->result == -EIO);
  CHECK(volume.status().suspended);
  volume.resume();
  int error = 1;
  REQUIRE(pair.finish([&](Done done) { volume.demote(done); }, &error));
  CHECK(error == 0);
  CHECK(volume.status().current == current);
  CHECK(pair.state(pair.a).dirty_chunks == 0);
  CHECK(pair.identical());
}

TEST_CASE("a link that says nothing is given up after the timeout and writing goes on") {
  Pair pair(test_seed());
  pair.wire_up = false;
  Request* request = pair.write(pair.a, 4096, 4096, 9);
  REQUIRE(pair.wait(request));
  CHECK(request->result == 0);
  CHECK(pair.a.volume().status().connection == Connection::kStandAlone);
  CHECK(pair.state(pair.a).dirty_chunks == 1);
}

// Its owner only turns when an I/O ended or a deadline is there: nothing else would wake it.
TEST_CASE("a write that waits for a log extent goes on when its peer is given up, and no later") {
  Pair pair(test_seed(), Protocol::kA);
  Limits limits;
  limits.peer_timeout_us = 100'000;
  limits.flush_interval_us = 60'000'000;
  pair.a.volume().set_limits(limits);
  pair.poll(pair.a);
  pair.wire_up = false;
  std::vector<Request*> requests;
  for (uint64_t extent = 0; extent < 16; ++extent)
    requests.push_back(pair.write(pair.a, extent * kMiB, 4096, 9));
  const auto done = [&] {
    return std::all_of(requests.begin(), requests.end(),
                       [](const Request* request) { return request->result <= 0; });
  };
  const uint64_t end_us = pair.now_us + 2 * limits.peer_timeout_us;
  while (!done() && pair.now_us < end_us) {
    if (!pair.a.step_io()) {
      REQUIRE(pair.a.io_count() == 0);
      pair.now_us = std::max(pair.now_us, pair.a.volume().next_deadline_us());
    }
    pair.poll(pair.a);
  }
  CHECK(done());
  CHECK(pair.state(pair.a).dirty_chunks == requests.size());
}

TEST_CASE("a node that did not run for long blames neither the peer nor its disk") {
  Pair pair(test_seed());
  pair.b.hang = true;
  Request* request = pair.write(pair.a, 4096, 4096, 9);
  pair.run_for(10'000);
  pair.now_us += 100 * Limits().peer_timeout_us;
  pair.b.hang = false;
  REQUIRE(pair.wait(request));
  CHECK(request->result == 0);
  CHECK(pair.connected());
  CHECK(pair.state(pair.a).dirty_chunks == 0);
}

TEST_CASE("a peer whose disk hangs is given up though it is heard of") {
  Pair pair(test_seed());
  pair.b.hang = true;
  Request* request = pair.write(pair.a, 4096, 4096, 9);
  REQUIRE(pair.run([&] { return request->result <= 0; }, 2'000'000));
  CHECK(request->result == 0);
  CHECK(pair.state(pair.a).dirty_chunks == 1);
  pair.b.hang = false;
  REQUIRE(pair.connect(&pair.a, false));
  REQUIRE(pair.run([&] { return pair.connected(); }));
  CHECK(pair.identical());
}

TEST_CASE("roles are exchanged over a standing link and both directions replicate") {
  Pair pair(test_seed());
  REQUIRE(pair.wait(pair.write(pair.a, 0, kMiB, 1)));
  int error = 1;
  REQUIRE(pair.finish([&](Done done) { pair.b.volume().promote(false, done); }, &error));
  CHECK(error == -EPERM);
  REQUIRE(pair.finish([&](Done done) { pair.a.volume().demote(done); }, &error));
  CHECK(error == 0);
  REQUIRE(pair.run([&] { return pair.b.volume().status().peer_role == Role::kSecondary; }));
  REQUIRE(pair.finish([&](Done done) { pair.b.volume().promote(false, done); }, &error));
  CHECK(error == 0);
  REQUIRE(pair.run([&] { return pair.a.volume().status().peer_role == Role::kPrimary; }));
  REQUIRE(pair.wait(pair.write(pair.b, 2 * kMiB, kMiB, 2)));
  CHECK(pair.identical());
  CHECK(pair.write(pair.a, 0, 512, 1)->result == -EIO);
}

TEST_CASE("an outdated copy that lacks nothing is UpToDate on both nodes once it is linked") {
  Pair pair(test_seed());
  int error = 1;
  REQUIRE(pair.finish([&](Done done) { pair.a.volume().outdate_peer(done); }, &error));
  REQUIRE(error == 0);
  pair.cut();
  REQUIRE(pair.run([&] { return pair.b.volume().handshake_state(pair.a.id()).idle; }));
  REQUIRE(pair.b.volume().status().disk == DiskState::kOutdated);
  REQUIRE(pair.connect(nullptr, false));
  CHECK(pair.a.volume().status().peer_disk == DiskState::kUpToDate);
  CHECK(pair.b.volume().status().disk == DiskState::kUpToDate);
}

TEST_CASE("an outdated or inconsistent copy is not promoted without force") {
  Pair pair(test_seed());
  int error = 1;
  REQUIRE(pair.finish([&](Done done) { pair.a.volume().outdate_peer(done); }, &error));
  CHECK(error == 0);
  pair.cut();
  REQUIRE(pair.run([&] { return pair.b.volume().handshake_state(pair.a.id()).idle; }));
  CHECK(pair.b.volume().status().disk == DiskState::kOutdated);
  REQUIRE(pair.finish([&](Done done) { pair.b.volume().promote(false, done); }, &error));
  CHECK(error == -EPERM);
  REQUIRE(pair.finish([&](Done done) { pair.b.volume().invalidate(0, done); }, &error));
  CHECK(error == 0);
  CHECK(pair.b.volume().status().disk == DiskState::kInconsistent);
  REQUIRE(pair.finish([&](Done done) { pair.b.volume().promote(false, done); }, &error));
  CHECK(error == -EPERM);
}

TEST_CASE("after a clean stop the log is empty and nothing is marked by the next attach") {
  Pair pair(test_seed());
  REQUIRE(pair.wait(pair.write(pair.a, 0, 12 * kMiB, 1)));
  int error = 1;
  REQUIRE(pair.finish([&](Done done) { pair.a.volume().stop(done); }, &error));
  REQUIRE(error == 0);
  pair.a.crash(true);
  pair.a.attach();
  CHECK(pair.a.volume().status().marked_by_replay_chunks == 0);
  CHECK(pair.state(pair.a).dirty_chunks == 0);
  CHECK(pair.a.volume().status().disk == DiskState::kUpToDate);
}

TEST_CASE("an unusable activity log makes everything dirty once, not at every attach") {
  Pair pair(test_seed());
  REQUIRE(pair.wait(pair.write(pair.a, 0, 20 * kMiB, 1)));  // the log turned over several times
  pair.cut();
  REQUIRE(pair.run([&] { return pair.a.volume().handshake_state(pair.b.id()).idle; }));
  pair.a.crash(false);
  pair.a.damage_log();
  pair.a.attach();
  CHECK(!pair.a.warnings.empty());
  CHECK(pair.state(pair.a).dirty_chunks == (pair.a.size() + 4095) / 4096);
  REQUIRE(pair.connect(&pair.a, false));
  REQUIRE(pair.run([&] { return pair.connected(); }));
  int error = 1;
  REQUIRE(pair.finish([&](Done done) { pair.a.volume().stop(done); }, &error));
  pair.a.crash(true);
  pair.a.attach();
  CHECK(pair.a.warnings.empty());
  CHECK(pair.state(pair.a).dirty_chunks == 0);
}

TEST_CASE("an interrupted resync resumes where it was") {
  Pair pair(test_seed());
  pair.cut();
  for (uint64_t i = 0; i < 16; ++i)
    REQUIRE(pair.wait(pair.write(pair.a, i * kMiB, kMiB, static_cast<uint8_t>(i + 1))));
  const uint64_t total = pair.state(pair.a).dirty_chunks;
  CHECK(total == 16 * 256);
  pair.limit([](Limits& limits) { limits.resync_requests = 4; });
  REQUIRE(pair.connect(&pair.a, false));
  REQUIRE(pair.run([&] { return pair.state(pair.a).dirty_chunks < total / 2; }));
  pair.cut();
  CHECK(pair.b.volume().status().disk == DiskState::kInconsistent);
  REQUIRE(pair.run([&] {
    return pair.b.volume().handshake_state(pair.a.id()).idle &&
           pair.a.volume().handshake_state(pair.b.id()).idle;
  }));
  const uint64_t left = pair.state(pair.a).dirty_chunks;
  CHECK(left > 0);
  REQUIRE(pair.connect(&pair.a, false));
  REQUIRE(pair.run([&] { return pair.connected(); }));
  CHECK(pair.a.volume().status().resync.chunks_sent <= left + 1);
  CHECK(pair.identical());
}

TEST_CASE("a full resync resumes by map after the target was restarted") {
  World world(test_seed(), small_geometry(), kDevice);
  world.a.attach();
  world.b.attach();
  Limits limits;
  limits.flush_interval_us = 2'000;
  world.b.volume().set_limits(limits);
  limits.resync_requests = 4;
  world.a.volume().set_limits(limits);
  int error = 1;
  REQUIRE(world.finish([&](Done done) { world.a.volume().promote(true, done); }, &error));
  REQUIRE(world.wait(world.write(world.a, 0, 16 * kMiB, 3)));
  REQUIRE(world.connect(&world.a, true));
  const auto left = [&] { return world.b.volume().handshake_state(world.a.id()).dirty_chunks; };
  const uint64_t total = left();
  REQUIRE(world.run([&] {
    const HandshakeState state = world.b.volume().handshake_state(world.a.id());
    return state.dirty_chunks < total / 2 && (state.slot_flags & kSlotAllDirty) == 0 &&
           world.b.volume().status().stale_map_blocks == 0;
  }));
  world.wire_up = false;
  world.b.crash(true);
  world.b.attach();
  CHECK(left() < total);
  CHECK(world.b.volume().status().disk == DiskState::kInconsistent);
  world.a.volume().link_stop("cut");
  REQUIRE(world.connect(&world.a, false));
  REQUIRE(world.run([&] { return world.connected(); }));
  CHECK(world.identical());
}

TEST_CASE("a resync ends under continuous writing") {
  Pair pair(test_seed());
  pair.cut();
  for (uint64_t i = 0; i < 8; ++i)
    REQUIRE(pair.wait(pair.write(pair.a, i * kMiB, kMiB, static_cast<uint8_t>(i + 1))));
  REQUIRE(pair.connect(&pair.a, false));
  uint64_t writes = 0;
  Request* last = nullptr;
  REQUIRE(pair.run([&] {
    if (last == nullptr || last->result <= 0)
      last = pair.write(pair.a, pair.random.below(8) * kMiB, 8192, static_cast<uint8_t>(++writes));
    return pair.connected();
  }));
  REQUIRE(pair.wait(last));
  CHECK(pair.identical());
}

TEST_CASE("garbage, wrong sequences and lies from the peer cost the link and nothing else") {
  for (uint64_t round = 0; round < 60; ++round) {
    const uint64_t seed = test_seed() + round;
    INFO("seed " << seed);
    Pair pair(seed);
    pair.wire_up = false;
    pair.b.wire_in.clear();
    std::vector<uint8_t> bytes(kFrameHeaderBytes + pair.random.below(300));
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(pair.random.next());
    if (round % 3 == 0) {
      const uint8_t magic[4] = {'T', 'M', 'F', '1'};
      std::memcpy(bytes.data(), magic, 4);
    }
    pair.b.wire_in.insert(pair.b.wire_in.end(), bytes.begin(), bytes.end());
    REQUIRE(
        pair.run([&] { return pair.b.volume().status().connection == Connection::kStandAlone; }));
    CHECK(pair.identical());
  }
}

// Random writing, cuts, crashes and power cuts of either node; after joining in peace the disks are
// equal, and nothing flushed is lost.
TEST_CASE("crashes at random moments cost a resync and no data") {
  for (uint64_t round = 0; round < 120; ++round) {
    const uint64_t seed = test_seed() * 1000 + round;
    INFO("seed " << seed);
    const Protocol protocol = round % 3 == 2 ? Protocol::kA : Protocol::kC;
    Pair pair(seed, protocol);
    std::vector<uint8_t> flushed(pair.a.size(),
                                 0);  // what was acknowledged and flushed, per 4 KiB block
    for (int life = 0; life < 4; ++life) {
      std::vector<std::pair<Request*, std::pair<uint64_t, uint8_t>>> out;
      std::map<uint64_t, uint8_t> acknowledged;
      const uint64_t writes = 5 + pair.random.below(60);
      for (uint64_t i = 0; i < writes; ++i) {
        const uint64_t block = pair.random.below(pair.a.size() / 4096);
        const uint8_t fill = static_cast<uint8_t>(1 + pair.random.below(255));
        bool busy = false;  // one write to a block at a time, so that what it must hold is known
        for (const auto& one : out)
          busy = busy || (one.second.first == block && one.first->result > 0);
        if (!busy) out.push_back({pair.write(pair.a, block * 4096, 4096, fill), {block, fill}});
        const uint64_t steps = pair.random.below(80);
        for (uint64_t step = 0; step < steps; ++step) pair.step();
        if (pair.random.chance(50)) pair.cut();
      }
      Request* flush = pair.random.chance(2) ? pair.flush(pair.a) : nullptr;
      std::vector<bool> before_flush;
      for (const auto& one : out) before_flush.push_back(one.first->result == 0);
      const uint64_t steps = pair.random.below(3000);
      for (uint64_t step = 0; step < steps; ++step) pair.step();
      const bool flush_done = flush != nullptr && flush->result == 0;
      // What block must hold: its last flushed value, unless a later write to it was begun.
      std::map<uint64_t, std::vector<uint8_t>> allowed;
      for (size_t i = 0; i < out.size(); ++i) {
        const auto [block, fill] = out[i].second;
        if (allowed.find(block) == allowed.end()) allowed[block] = {flushed[block * 4096]};
        if (flush_done && before_flush[i]) {
          allowed[block] = {fill};
        } else {
          allowed[block].push_back(fill);
        }
      }
      const bool a_dies = pair.random.chance(2);
      const bool b_dies = pair.random.chance(3);
      const bool power = pair.random.chance(2);
      pair.wire_up = false;
      if (a_dies) pair.a.crash(power);
      if (b_dies) pair.b.crash(power);
      if (a_dies) pair.a.attach();
      if (b_dies) pair.b.attach();
      pair.cut();
      if (!a_dies)
        REQUIRE(pair.run([&] { return pair.a.volume().status().requests_in_flight == 0; }));
      REQUIRE(pair.run([&] {
        return pair.a.volume().handshake_state(pair.b.id()).idle &&
               pair.b.volume().handshake_state(pair.a.id()).idle;
      }));

      // The sentence that must hold: every chunk that differs is marked on a node that will be
      // asked.
      REQUIRE(pair.connect(&pair.a, false, protocol));
      if (a_dies) {
        int error = 1;
        REQUIRE(pair.run([&] { return pair.connected(); }));
        REQUIRE(pair.finish([&](Done done) { pair.a.volume().promote(false, done); }, &error));
        REQUIRE(error == 0);
      }
      REQUIRE(pair.run([&] { return pair.connected(); }));
      if (!pair.identical()) {
        for (uint64_t block = 0; block < pair.a.size() / 4096; ++block) {
          if (std::memcmp(pair.a.data() + block * 4096, pair.b.data() + block * 4096, 4096) != 0) {
            FAIL("life " << life << ": block " << block
                         << " differs: " << int(pair.a.data()[block * 4096]) << " "
                         << int(pair.b.data()[block * 4096]));
          }
        }
      }
      for (const auto& [block, values] : allowed) {
        const uint8_t is = pair.a.data()[block * 4096];
        bool found = false;
        for (const uint8_t value : values) found = found || is == value;
        if (!found && !power) FAIL("life " << life << ": block " << block << " holds " << int(is));
        if (!found && flush_done && values.size() == 1)
          FAIL("life " << life << ": flushed block " << block << " holds " << int(is));
      }
      std::memcpy(flushed.data(), pair.a.data(), flushed.size());
      pair.a.completed.clear();
    }
  }
}

}  // namespace tidemark::test
