// The volume when things go wrong: disks, metadata or memory that fail, a peer that does not read.
#include <doctest/doctest.h>

#include <algorithm>
#include <utility>

#include "core/frame.h"
#include "core/metadata_writer.h"
#include "pair.h"

namespace tidemark::test {

TEST_CASE("after a failed flush no other flush succeeds, and nothing leaves the activity log") {
  Pair pair(test_seed());
  pair.limit([](Limits& limits) { limits.flush_interval_us = 10'000; });
  REQUIRE(pair.wait(pair.write(pair.a, 0, 4096, 1)));
  bool failed = false;
  pair.a.fail = [&](const Io& io) {
    if (!is_flush(io) || failed) return 0;
    failed = true;  // what the kernel tells once is told to nobody else
    return -EIO;
  };
  Request* first = pair.flush(pair.a);
  Request* second = pair.flush(pair.a);
  REQUIRE(pair.wait(first));
  REQUIRE(pair.wait(second));
  CHECK(first->result == -EIO);
  CHECK(second->result == -EIO);
  CHECK(pair.a.volume().status().disk == DiskState::kFailed);
  CHECK(pair.write(pair.a, 0, 4096, 2)->result == -EIO);

  // The write of before is durable at the peer alone, and may be lost here (R3).
  const uint32_t hot = pair.a.volume().status().log_hot;
  REQUIRE(hot > 0);
  pair.run_for(100'000);
  CHECK(pair.a.volume().status().log_hot == hot);
  int error = 1;
  REQUIRE(pair.finish([&](Done done) { pair.a.volume().demote(done); }, &error));
  CHECK(error == -EIO);
  REQUIRE(pair.finish([&](Done done) { pair.a.volume().stop(done); }, &error));
  CHECK(error == -EIO);
  pair.a.crash(true);
  pair.a.attach();
  CHECK(pair.a.volume().status().marked_by_replay_chunks >= 256);
}

TEST_CASE("a write of zeroes whose flush fails is a failed disk") {
  Pair pair(test_seed());
  pair.a.fail = [&](const Io& io) { return is_flush(io) ? -EIO : 0; };
  Request* zeroes = pair.write(pair.a, 0, 64 * 1024, 0, kRequestFua, Op::kWriteZeroes);
  REQUIRE(pair.wait(zeroes));
  CHECK(zeroes->result == -EIO);
  CHECK(pair.a.volume().status().disk == DiskState::kFailed);
}

TEST_CASE("writes that wait for the activity log fail with the disk") {
  Pair pair(test_seed());
  pair.a.fail = [&](const Io& io) { return is_flush(io) ? -EIO : 0; };
  pair.a.holds = is_meta_write;
  Request* request = pair.write(pair.a, 20 * kMiB, 4096, 1);
  Request* flush = pair.flush(pair.a);
  REQUIRE(pair.wait(flush));
  pair.a.holds = nullptr;
  REQUIRE(pair.wait(request));
  CHECK(request->result == -EIO);
}

TEST_CASE("a write that waits for the activity log fails when other metadata cannot be written") {
  Pair pair(test_seed());
  pair.cut();
  REQUIRE(pair.idle());
  const auto is_map_write = [](const Io& io) { return is_meta_write(io) && io.flags == 0; };
  pair.a.holds = is_map_write;
  pair.limit([](Limits& limits) { limits.flush_interval_us = 20'000; });
  bool sweeps = false;
  pair.a.fail = [&](const Io& io) {
    sweeps = sweeps || is_map_write(io);
    return is_map_write(io) ? -EIO : 0;
  };
  // The only extent in use stays in use, so that the log has nothing to write.
  while (pair.a.volume().status().stale_map_blocks != 0 || pair.a.io_count() == 0)
    REQUIRE(pair.wait(pair.write(pair.a, 0, 4096, 1)));
  const auto is_data_write = [](const Io& io) {
    return io.target == IoTarget::kData && io.kind == IoKind::kWrite;
  };
  pair.a.holds = [&](const Io& io) { return is_map_write(io) || is_data_write(io); };
  Request* slow = pair.write(pair.a, 10 * kMiB, 4096, 2);  // wakes nobody
  pair.run_for(5'000);
  Request* request = pair.write(pair.a, 20 * kMiB, 4096, 2);
  pair.a.holds = is_data_write;
  while (!sweeps) pair.a.step_io();
  REQUIRE(pair.wait(request));
  CHECK(request->result == -EIO);
  CHECK(slow->result > 0);
}

TEST_CASE("a source is demoted and stopped in the middle of a resync") {
  for (const bool stops : {false, true}) {
    Pair pair(test_seed());
    pair.cut();
    for (uint64_t i = 0; i < 20; ++i)
      REQUIRE(pair.wait(pair.write(pair.a, i * kMiB, kMiB, static_cast<uint8_t>(i + 1))));
    pair.limit([](Limits& limits) { limits.resync_requests = 2; });
    REQUIRE(pair.connect(&pair.a, false));
    REQUIRE(
        pair.run([&] { return pair.a.volume().status().connection == Connection::kSyncSource; }));
    Request* request = pair.write(pair.a, 3 * kMiB, 4096, 99);
    REQUIRE(pair.wait(request));
    const uint64_t before = pair.state(pair.a).dirty_chunks;
    REQUIRE(before > 0);
    CHECK(pair.end(pair.a, stops) == 0);
    CHECK(pair.state(pair.a).dirty_chunks > 0);
    if (stops) continue;
    CHECK(pair.a.volume().status().role == Role::kSecondary);
    REQUIRE(pair.run([&] { return pair.connected(); }));
    CHECK(pair.identical());
  }
}

TEST_CASE("requests that come during a demotion end, and what they wrote is not forgotten") {
  for (uint64_t round = 0; round < 20; ++round) {
    Pair pair(test_seed() + round, round % 2 == 0 ? Protocol::kA : Protocol::kC);
    INFO("seed " << test_seed() + round);
    REQUIRE(pair.wait(pair.write(pair.a, 0, 4096, 1)));
    int error = 1;
    bool late = false;
    // At some moment of it, which is another one in each round.
    pair.a.holds = [&](const Io& io) { return late && io.target == IoTarget::kData; };
    pair.a.volume().demote([&](int result, const std::string&) { error = result; });
    for (uint64_t step = 0; step < round * 3; ++step) pair.step();
    late = true;
    std::vector<Request*> requests;
    for (uint64_t i = 0; i < 3; ++i)
      requests.push_back(pair.write(pair.a, i * kMiB, 4096, static_cast<uint8_t>(i + 2)));
    late = false;
    REQUIRE(pair.run([&] { return error <= 0; }));
    for (Request* request : requests) {
      REQUIRE(pair.wait(request));
      CHECK((error != 0 || request->result != 1));
    }
    pair.cut();
    REQUIRE(pair.idle());
    const bool marked = pair.state(pair.a).dirty_chunks > 0;
    CHECK((marked || pair.identical()));
  }
}

TEST_CASE("each of two commands to outdate the peer is answered") {
  Pair pair(test_seed());
  int first = 1;
  int second = 1;
  pair.a.volume().outdate_peer([&](int error, const std::string&) { first = error; });
  pair.a.volume().outdate_peer([&](int error, const std::string&) { second = error; });
  REQUIRE(pair.run([&] { return first <= 0 && second <= 0; }));
  CHECK(first == 0);
}

namespace {
// Keeps what is submitted.
struct Recorder : Host {
  void submit(Io* io) override { out.push_back(io); }
  void complete(Request*) override {}
  uint8_t* buffer_get(size_t bytes) override {
    return static_cast<uint8_t*>(std::aligned_alloc(kBlockSize, bytes));
  }
  void buffer_put(uint8_t* buffer, size_t) override { std::free(buffer); }
  uint64_t random_u64() override { return 2; }
  void event(Event) override {}
  size_t send_space() override { return 0; }
  uint8_t* send_reserve(size_t) override { return nullptr; }
  void send_commit(size_t) override {}
  void end_one() {
    Io* io = out.front();
    out.pop_front();
    io->done(io->context, io);
  }
  std::deque<Io*> out;
};
}  // namespace

// Who is told that a sweep is over may conclude from a map without stale blocks that it is on disk.
TEST_CASE("no map block is being written when a sweep says that it is over") {
  Recorder host;
  Superblock sb;
  sb.geometry.volume_bytes = 600 * kMiB;
  const Layout layout = make_layout(sb.geometry);
  MetadataWriter::Maps maps;
  maps[0] = std::make_unique<DirtyMap>(sb.geometry.volume_bytes, sb.geometry.chunk_bytes);
  maps[0]->mark_all();
  const uint64_t blocks = maps[0]->block_count();
  REQUIRE(blocks > 2);
  MetadataWriter writer({host, sb, layout, maps, true});
  bool swept = false;
  bool all = false;
  writer.sweep_maps(1, [&](bool ok) {
    swept = true;
    CHECK(ok);
    for (uint64_t block = 0; block < blocks; ++block) CHECK(!maps[0]->block_writing(block));
  });
  writer.write_all_maps([&](bool ok) {
    all = true;
    CHECK(ok);
  });
  while (!host.out.empty()) host.end_one();
  CHECK(swept);
  CHECK(all);
  CHECK(writer.stale_blocks() == 0);
  CHECK(writer.idle());
}

TEST_CASE("a slow flush of the receiver does not make the sender look dead") {
  Pair pair(test_seed(), Protocol::kA);
  pair.limit([](Limits& limits) {
    limits.peer_timeout_us = 200'000;
    limits.ping_interval_us = 20'000;
  });
  pair.b.receive_bytes = 2 * kMiB;
  pair.b.holds = is_flush;
  REQUIRE(pair.wait(pair.write(pair.a, 0, 4096, 1)));
  REQUIRE(pair.wait(pair.flush(pair.a)));  // an ordering barrier: the rest has to wait there
  for (uint64_t i = 0; i < 6; ++i) pair.write(pair.a, i * kMiB, kMiB, 2);
  REQUIRE(pair.run([&] { return pair.b.wire_in.size() == pair.b.receive_bytes; }));
  pair.run_for(1'000'000);
  CHECK(pair.connected());
  pair.b.holds = nullptr;
  REQUIRE(pair.wait(pair.flush(pair.a)));
  pair.run_for(100'000);
  CHECK(pair.connected());
  CHECK(pair.identical());
  pair.wire_up = false;  // now it is dead
  pair.run_for(400'000);
  CHECK(pair.b.volume().status().connection == Connection::kStandAlone);
}

// What is held up waits for the peer, and not for this node, so that it is no sign of life.
TEST_CASE("a peer that writes and reads no acknowledgement is held up, and not for ever") {
  Pair pair(test_seed());
  bool reads = false;
  SUBCASE("it reads after all") { reads = true; }
  SUBCASE("it does not") {}
  pair.cut();
  pair.link_stranger(pair.b);
  pair.b.wire_bytes = 0;
  constexpr uint64_t kWrites = 40'000;
  constexpr uint64_t kEpochWrites = 256;
  for (uint64_t i = 0; i < kWrites; ++i) {
    FrameHeader header;
    header.type = FrameType::kZeroes;
    header.flags = i % 2 == 0 ? kFrameAckWritten : 0;  // no two can be acknowledged as one range
    header.sequence = i + 1;
    header.epoch = static_cast<uint32_t>(1 + i / kEpochWrites);
    header.offset = i % 1000 * 512;
    header.length = 512;
    pair.say(pair.b, header);
    if (i % kEpochWrites != kEpochWrites - 1) continue;
    FrameHeader barrier;
    barrier.type = FrameType::kBarrier;
    barrier.epoch = header.epoch;
    barrier.sequence = header.sequence;
    barrier.offset = kEpochWrites;
    pair.say(pair.b, barrier);
  }
  // In pieces: a wire of 6 MiB looked at anew with each step would take long.
  const std::vector<uint8_t> bytes = std::exchange(pair.b.wire_in, {});
  uint64_t at = 0;
  bool held_up = false;
  while (at < bytes.size() && !held_up) {
    const uint64_t piece = std::min<uint64_t>(bytes.size() - at, 100 * kFrameHeaderBytes);
    uint64_t used = 0;
    for (int tries = 0; tries < 100 && used == 0; ++tries) {
      used = pair.b.volume().link_input({bytes.data() + at, piece});
      while (pair.b.step_io()) {
      }
      pair.b.volume().poll(pair.now_us);
    }
    at += used;
    held_up = used == 0;
  }
  CHECK(held_up);
  CHECK_FALSE(pair.b.volume().takes_input());
  const Limits limits;
  if (reads) pair.b.wire_bytes = 16 * kMiB;
  const uint64_t end_us = pair.now_us + 2 * limits.peer_timeout_us;
  bool goes_on = false;
  while (!goes_on && pair.now_us < end_us) {
    pair.now_us += limits.ping_interval_us;
    pair.b.volume().poll(pair.now_us);
    if (pair.b.volume().status().connection != Connection::kConnected) break;
    const bool takes = pair.b.volume().takes_input();
    goes_on = pair.b.volume().link_input({bytes.data() + at, bytes.size() - at}) > 0;
    CHECK(takes == goes_on);
  }
  CHECK(goes_on == reads);
  CHECK((pair.b.volume().status().connection == Connection::kConnected) == reads);
  const auto told = [](const Event& event) {
    return event.kind == EventKind::kLinkDown && event.text.find("the peer has read nothing") == 0;
  };
  CHECK(std::any_of(pair.b.events.begin(), pair.b.events.end(), told) == !reads);
}

// The peer says something once in a ping interval: half of one before the end of its time.
TEST_CASE("what was heard counts from when it came, and not from the turn before") {
  Pair pair(test_seed());
  pair.limit([](Limits& limits) {
    limits.ping_interval_us = 5'000'000;
    limits.peer_timeout_us = 6'000'000;
  });
  pair.cut();
  pair.link_stranger(pair.b);
  Volume& volume = pair.b.volume();
  const uint64_t begin_us = pair.now_us;
  volume.poll(begin_us);
  FrameHeader ping;
  ping.type = FrameType::kPing;
  pair.say(pair.b, ping);
  const std::vector<uint8_t> bytes = std::exchange(pair.b.wire_in, {});
  REQUIRE(volume.link_input(bytes) == bytes.size());
  volume.poll(begin_us + 3'000'000);
  volume.poll(begin_us + 6'100'000);
  CHECK(volume.status().connection == Connection::kConnected);
  volume.poll(begin_us + 8'900'000);
  CHECK(volume.status().connection == Connection::kConnected);
  volume.poll(begin_us + 9'100'000);
  CHECK(volume.status().connection == Connection::kStandAlone);
}

// The answer to the offered generation got lost, and the peer has taken it over.
TEST_CASE("a link with nothing to copy leaves both sides sharing their generation") {
  Pair pair(test_seed());
  pair.cut();
  REQUIRE(pair.wait(pair.write(pair.a, 0, 4096, 1)));
  const uint64_t shared = pair.state(pair.a).current;
  REQUIRE(pair.connect(&pair.a, false));
  REQUIRE(pair.run([&] { return (pair.state(pair.a).slot_flags & kSlotSyncEnding) != 0; }));
  pair.a.receive_bytes = 0;
  REQUIRE(pair.run([&] { return pair.state(pair.b).current == shared; }));
  pair.cut();
  pair.a.receive_bytes = SIZE_MAX;
  CHECK(pair.state(pair.a).bitmap != 0);
  REQUIRE(pair.connect(nullptr, false));
  CHECK(pair.state(pair.a).bitmap == 0);
  // The next break makes a new one again (R7).
  pair.cut();
  REQUIRE(pair.wait(pair.write(pair.a, 0, 4096, 1)));
  CHECK(pair.state(pair.a).current != shared);
  CHECK(pair.state(pair.a).bitmap == shared);
  // Generations that differ are not in step, whatever the shell says.
  REQUIRE(pair.idle());
  CHECK(!pair.connect(nullptr, false));
}

// The target's marks are cleared on its disk later: with them there again, and equal generations,
// it must still be known which copy counts.
TEST_CASE("after a resync between two secondaries a crash of the target leaves nothing to ask") {
  Pair pair(test_seed());
  int error = 1;
  REQUIRE(pair.finish([&](Done done) { pair.a.volume().demote(done); }, &error));
  REQUIRE(error == 0);
  pair.cut();
  REQUIRE(pair.finish([&](Done done) { pair.b.volume().promote(false, done); }, &error));
  REQUIRE(error == 0);
  REQUIRE(pair.wait(pair.write(pair.b, 0, 4096, 1)));
  REQUIRE(pair.finish([&](Done done) { pair.b.volume().demote(done); }, &error));
  REQUIRE(pair.connect(&pair.b, false));
  REQUIRE(pair.run([&] { return pair.connected(); }));
  CHECK((pair.state(pair.a).slot_flags & kSlotPeerPrimary) != 0);
  CHECK((pair.state(pair.b).slot_flags & kSlotPeerPrimary) == 0);
  CHECK(pair.state(pair.a).current == pair.state(pair.b).current);
}

// Rule 38 makes such a source: the target was primary last, and its flush failed.
TEST_CASE("the source forgets that its target was primary before that one may forget it") {
  Pair pair(test_seed());
  REQUIRE(pair.end(pair.a, false) == 0);
  REQUIRE(pair.run([&] { return pair.b.volume().status().peer_role == Role::kSecondary; }));
  REQUIRE((pair.state(pair.b).slot_flags & kSlotPeerPrimary) != 0);
  pair.cut();
  REQUIRE(pair.connect(&pair.b, false));
  REQUIRE(pair.run([&] { return pair.a.volume().status().connection == Connection::kConnected; }));
  REQUIRE(pair.b.volume().status().connection == Connection::kSyncSource);
  pair.b.crash(false);
  pair.b.attach();
  CHECK((pair.state(pair.a).slot_flags & kSlotPeerPrimary) != 0);
  CHECK((pair.state(pair.b).slot_flags & kSlotPeerPrimary) == 0);
}

// R7: b and a third node share a generation, and this primary has never met that one.
TEST_CASE(
    "a new primary's first write completes when its peer has a generation that nobody else "
    "shares") {
  for (const bool breaks : {false, true}) {
    CAPTURE(breaks);
    Pair pair(test_seed());
    REQUIRE(pair.wait(pair.write(pair.a, 0, 4096, 1)));
    int error = 1;
    REQUIRE(pair.finish([&](Done done) { pair.a.volume().demote(done); }, &error));
    REQUIRE(error == 0);
    pair.cut();
    REQUIRE(pair.idle());
    pair.bind_stranger(pair.b);
    REQUIRE(pair.connect(nullptr, false));
    REQUIRE(pair.finish([&](Done done) { pair.a.volume().promote(false, done); }, &error));
    REQUIRE(error == 0);
    const uint64_t shared = pair.state(pair.b).current;
    REQUIRE(pair.state(pair.a).current == shared);
    REQUIRE(pair.b.volume().handshake_state(pair.stranger).bitmap == kGenerationNone);
    Request* write = pair.write(pair.a, 4096, 4096, 2);
    if (breaks) {
      REQUIRE(pair.run([&] { return pair.state(pair.a).current != shared; }));
      pair.cut();
    }
    REQUIRE(pair.wait(write));
    CHECK(write->result == 0);
    CHECK(pair.state(pair.a).current != shared);
    if (breaks) continue;
    CHECK(pair.state(pair.b).current == pair.state(pair.a).current);
    // What b has marked for the third node counts from what they shared.
    CHECK(pair.b.volume().handshake_state(pair.stranger).bitmap == shared);
  }
}

// R1, R3: the primary's log covers what it sent; a node that was not known then has no such log.
TEST_CASE(
    "what a primary sent is durable at its peer before that one is linked with another node") {
  Pair pair(test_seed());
  pair.limit([](Limits& limits) { limits.epoch_interval_us = 1'000'000'000; });
  REQUIRE(pair.wait(pair.write(pair.a, kMiB, 4096, 9)));
  REQUIRE(pair.b.data()[kMiB] == 9);
  REQUIRE(pair.b.disk().durable()[kMiB] != 9);
  pair.a.crash(true);
  pair.b.volume().link_stop("the primary is gone");
  REQUIRE(pair.run([&] { return pair.b.volume().handshake_state(pair.stranger).idle; }));
  REQUIRE(pair.b.disk().durable()[kMiB] != 9);
  pair.link_stranger(pair.b);
  CHECK(pair.b.disk().durable()[kMiB] == 9);
}

// Otherwise the two share no more than what came before both of them: a split brain.
TEST_CASE("a copy knows the generation of a third node that its source has left behind") {
  for (const bool meanwhile : {false, true}) {
    CAPTURE(meanwhile);
    Pair pair(test_seed());
    pair.cut();
    REQUIRE(pair.wait(pair.write(pair.a, 0, 4096, 1)));
    REQUIRE(pair.idle());
    pair.bind_stranger(pair.a);
    const uint64_t left_behind = pair.state(pair.a).current;
    if (!meanwhile) REQUIRE(pair.wait(pair.write(pair.a, 4096, 4096, 2)));
    REQUIRE(pair.connect(&pair.a, false));
    // What the source told in the handshake was true then.
    if (meanwhile) {
      REQUIRE(pair.state(pair.a).current == left_behind);
      Request* write = pair.write(pair.a, 4096, 4096, 2);
      REQUIRE(pair.run([&] { return pair.state(pair.a).current != left_behind; }));
      REQUIRE(!pair.connected());
      REQUIRE(pair.wait(write));
    }
    REQUIRE(pair.run([&] { return pair.connected(); }));
    REQUIRE(pair.state(pair.a).current != left_behind);
    REQUIRE(pair.state(pair.b).current == pair.state(pair.a).current);
    const auto history = pair.state(pair.b).history;
    CHECK(std::count(history.begin(), history.end(), left_behind) == 1);
  }
}

TEST_CASE(
    "what a primary sent is durable at its peer before a blank disk takes the primary's place") {
  Pair pair(test_seed());
  pair.limit([](Limits& limits) { limits.epoch_interval_us = 1'000'000'000; });
  REQUIRE(pair.wait(pair.write(pair.a, kMiB, 4096, 9)));
  pair.a.crash(true);
  pair.b.volume().link_stop("the primary is gone");
  REQUIRE(pair.run([&] { return pair.b.volume().handshake_state(pair.stranger).idle; }));
  REQUIRE(pair.b.disk().durable()[kMiB] != 9);
  LinkParams params = pair.stranger_params(pair.b);
  params.peer_name = pair.a.name();
  params.peer_current = kGenerationJustCreated;
  params.peer_disk = DiskState::kInconsistent;
  params.side = SyncSide::kSource;
  params.full = true;
  params.sync_generation = pair.state(pair.b).current;
  int error = 1;
  pair.b.volume().link_prepare(params, [&](int result, const std::string&) { error = result; });
  REQUIRE(pair.run([&] { return error <= 0; }));
  REQUIRE(error == 0);
  CHECK(pair.b.disk().durable()[kMiB] == 9);
}

TEST_CASE("what a secondary passes on in a resync is durable on its own disk first") {
  Pair pair(test_seed());
  pair.limit([](Limits& limits) { limits.epoch_interval_us = 1'000'000'000; });
  REQUIRE(pair.wait(pair.write(pair.a, kMiB, 4096, 9)));
  pair.a.crash(true);
  pair.b.volume().link_stop("the primary is gone");
  pair.a.attach();
  REQUIRE(pair.idle());
  REQUIRE(pair.b.disk().durable()[kMiB] != 9);
  REQUIRE(pair.connect(&pair.b, true));
  CHECK(pair.b.disk().durable()[kMiB] == 9);
}

// R18: that a node was primary last lets its waiting I/O go on.
TEST_CASE("a copy that takes over a generation forgets that a third node was primary") {
  for (const bool resync : {true, false}) {
    Pair pair(test_seed());
    pair.cut();
    REQUIRE(pair.idle());
    LinkParams params = pair.stranger_params(pair.b);
    params.peer_role = Role::kPrimary;
    int error = 1;
    REQUIRE(pair.finish([&](Done done) { pair.b.volume().link_prepare(params, done); }, &error));
    REQUIRE(error == 0);
    REQUIRE(pair.b.volume().link_start());
    pair.b.volume().link_stop("gone");
    REQUIRE(pair.idle());
    const auto flags = [&] { return pair.b.volume().handshake_state(pair.stranger).slot_flags; };
    if (resync) {
      REQUIRE(pair.wait(pair.write(pair.a, 0, 4096, 1)));
      REQUIRE(pair.idle());
      REQUIRE(pair.connect(&pair.a, false));
      REQUIRE(pair.run([&] { return pair.connected(); }));
    } else {
      pair.bind_stranger(pair.a);
      REQUIRE(pair.connect(nullptr, false));
      // Nobody wrote yet.
      CHECK((flags() & kSlotPeerPrimary) != 0);
      const uint64_t before = pair.state(pair.b).current;
      REQUIRE(pair.wait(pair.write(pair.a, 0, 4096, 1)));
      REQUIRE(pair.run([&] { return pair.state(pair.b).current != before; }));
    }
    CHECK((flags() & kSlotPeerPrimary) == 0);
    CHECK((pair.state(pair.b).slot_flags & kSlotPeerPrimary) != 0);
  }
}

TEST_CASE("the target of a resync knows the source's past, up to what the two shared") {
  Pair pair(test_seed());
  pair.cut();
  const uint64_t shared = pair.state(pair.b).current;  // a third node may still have it
  REQUIRE(pair.wait(pair.write(pair.a, 0, 4096, 1)));
  REQUIRE(pair.connect(&pair.a, false));
  REQUIRE(pair.run([&] { return pair.connected(); }));
  for (Node* node : {&pair.a, &pair.b}) {
    const auto history = pair.state(*node).history;
    CHECK(std::count(history.begin(), history.end(), shared) == 1);
  }
  CHECK(pair.state(pair.a).history == pair.state(pair.b).history);
}

TEST_CASE("a request does not wait for ever for a peer that lives and reads nothing") {
  Pair pair(test_seed());
  pair.cut();
  pair.limit([](Limits& limits) { limits.peer_timeout_us = 100'000; });
  pair.link_stranger(pair.a);
  pair.a.wire_bytes = 0;
  Request* request = pair.write(pair.a, 0, 4096, 1);
  REQUIRE(pair.run([&] {
    FrameHeader ping;
    ping.type = FrameType::kPing;
    pair.say(pair.a, ping);
    return request->result <= 0;
  }));
  CHECK(request->result == 0);
}

TEST_CASE("a link that has used up its epochs ends, and the next one goes on") {
  Pair pair(test_seed());
  pair.limit([](Limits& limits) { limits.epochs_max = 8; });
  for (uint64_t i = 0; i < 12; ++i) {
    pair.write(pair.a, i * 4096, 4096, 3);
    REQUIRE(pair.wait(pair.flush(pair.a)));
  }
  REQUIRE(pair.run([&] { return !pair.connected(); }));
  CHECK(pair.told(pair.a, EventKind::kLinkDown, "epochs are used up"));
  REQUIRE(pair.connect(&pair.a, false));
  REQUIRE(pair.run([&] { return pair.connected(); }));
  CHECK(pair.identical());
}

}  // namespace tidemark::test
