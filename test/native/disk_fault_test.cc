// Disks that fail under the three values of on-io-error, and what becomes of them (docs/STATES.md).
#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "core/frame.h"
#include "pair.h"

namespace tidemark::test {

namespace {

bool is_data(const Io& io) { return io.target == IoTarget::kData; }
bool is_data_read(const Io& io) { return is_data(io) && io.kind == IoKind::kRead; }

struct FaultPair : Pair {
  explicit FaultPair(OnIoError policy, Protocol protocol_in = Protocol::kC, bool apart = false,
                     uint64_t seed = test_seed())
      : Pair(seed, protocol_in, apart) {
    limit([policy](Limits& limits) { limits.on_io_error = policy; });
  }
  Request* read(Node& node, uint64_t offset, uint64_t length) {
    return write(node, offset, length, 0xee, 0, Op::kRead);
  }
  static bool holds_only(const Request* request, uint8_t fill) {
    return std::all_of(request->buffer, request->buffer + request->length,
                       [&](uint8_t byte) { return byte == fill; });
  }
  DiskState disk(Node& node) { return node.volume().status().disk; }
  // From now on nothing works on this disk.
  static void dies(Node& node) {
    node.fail = [](const Io&) { return -EIO; };
  }
  // a's disk dies and is let go of.
  void detach() {
    dies(a);
    Request* request = read(a, 0, 4096);
    REQUIRE(wait(request));
    REQUIRE(request->result == 0);
    REQUIRE(disk(a) == DiskState::kDiskless);
  }
  uint8_t byte_at(Node& node, uint64_t offset) { return node.data()[offset]; }
  bool told(Node& node, EventKind kind, const std::string& text) {
    return std::any_of(node.events.begin(), node.events.end(), [&](const Event& event) {
      return event.kind == kind && event.text.find(text) != std::string::npos;
    });
  }
};

}  // namespace

// --- pass-on ---

TEST_CASE("pass-on: a read that fails fails its request, and nothing else") {
  FaultPair pair(OnIoError::kPassOn);
  pair.a.fail = [](const Io& io) { return is_data_read(io) ? -EIO : 0; };
  Request* request = pair.read(pair.a, 0, 4096);
  REQUIRE(pair.wait(request));
  CHECK(request->result == -EIO);
  CHECK(pair.disk(pair.a) == DiskState::kUpToDate);
  CHECK(pair.connected());
  CHECK(pair.a.volume().status().disk_errors == 1);
  Request* write = pair.write(pair.a, 0, 4096, 1);
  REQUIRE(pair.wait(write));
  CHECK(write->result == 0);
}

TEST_CASE("pass-on: a write that failed stays marked, and a resync follows by itself") {
  FaultPair pair(OnIoError::kPassOn);
  pair.limit([](Limits& limits) { limits.flush_interval_us = 50'000; });
  pair.a.fail_next_write = -EIO;
  Request* request = pair.write(pair.a, 3 * kMiB, 4096, 7);
  REQUIRE(pair.wait(request));
  CHECK(request->result == -EIO);
  CHECK(pair.state(pair.a).dirty_chunks == 1);
  CHECK(!pair.identical());
  CHECK(pair.disk(pair.a) == DiskState::kUpToDate);
  REQUIRE(pair.run([&] { return !pair.connected(); }));
  CHECK(pair.told(pair.a, EventKind::kLinkDown, "write failed"));
  REQUIRE(pair.connect(&pair.a, false));
  REQUIRE(pair.run([&] { return pair.connected(); }));
  CHECK(pair.identical());
  pair.run_for(200'000);
  CHECK(pair.connected());
}

TEST_CASE("pass-on: a failed flush fails the disk, which does not come back as UpToDate") {
  for (const bool alone : {false, true}) {
    FaultPair pair(OnIoError::kPassOn);
    if (alone) pair.cut();
    REQUIRE(pair.wait(pair.write(pair.a, 0, 4096, 1)));
    pair.a.fail = [](const Io& io) { return is_data(io) && is_flush(io) ? -EIO : 0; };
    Request* flush = pair.flush(pair.a);
    REQUIRE(pair.wait(flush));
    CHECK(flush->result == -EIO);
    CHECK(pair.disk(pair.a) == DiskState::kFailed);
    CHECK(pair.write(pair.a, 0, 4096, 2)->result == -EIO);
    CHECK(pair.flush(pair.a)->result == -EIO);
    Request* read = pair.read(pair.a, 0, 4096);
    REQUIRE(pair.wait(read));
    CHECK(read->result == 0);
    CHECK(pair.a.volume().status().disk_reason.find("flush") != std::string::npos);
    if (!alone) CHECK(pair.b.volume().status().peer_disk == DiskState::kFailed);
    pair.run_for(10'000);
    pair.a.fail = nullptr;
    pair.a.crash(false);
    pair.a.attach();
    CHECK(pair.disk(pair.a) == (alone ? DiskState::kConsistent : DiskState::kInconsistent));
    int error = 1;
    pair.a.volume().promote(false, [&](int result, const std::string&) { error = result; });
    CHECK(error == -EPERM);
  }
}

// --- a secondary's disk ---

TEST_CASE("a secondary whose disk fails tells the primary, and acknowledges nothing more") {
  for (const bool flush_fails : {false, true}) {
    FaultPair pair(OnIoError::kDetach);
    pair.b.fail = [&](const Io& io) {
      return is_data(io) && (flush_fails ? is_flush(io) : io.kind == IoKind::kWrite) ? -EIO : 0;
    };
    Request* request = pair.write(pair.a, 5 * kMiB, 4096, 9, kRequestFua);
    REQUIRE(pair.wait(request));
    CHECK(request->result == 0);
    CHECK(pair.a.volume().status().connection == Connection::kStandAlone);
    CHECK(pair.disk(pair.a) == DiskState::kUpToDate);
    CHECK(pair.disk(pair.b) == DiskState::kFailed);
    CHECK(pair.told(pair.a, EventKind::kLinkDown, "peer"));
    CHECK(pair.state(pair.a).dirty_chunks == 1);
    CHECK(pair.state(pair.a).bitmap == pair.state(pair.b).current);
    pair.b.fail = nullptr;
    pair.cut();
    pair.run_for(10'000);
    pair.b.crash(false);
    pair.b.attach();
    CHECK(pair.disk(pair.b) == DiskState::kInconsistent);
    REQUIRE(pair.connect(&pair.a, false));
    REQUIRE(pair.run([&] { return pair.connected(); }));
    CHECK(pair.disk(pair.b) == DiskState::kUpToDate);
    CHECK(pair.identical());
  }
}

TEST_CASE("pass-on: a secondary is resynced after a failed write, and fails at the second") {
  for (const bool again : {false, true}) {
    FaultPair pair(OnIoError::kPassOn);
    pair.b.fail_next_write = -EIO;
    REQUIRE(pair.wait(pair.write(pair.a, 5 * kMiB, 4096, 9)));
    CHECK(pair.disk(pair.b) == DiskState::kInconsistent);
    CHECK(pair.disk(pair.a) == DiskState::kUpToDate);
    REQUIRE(pair.run([&] { return !pair.connected(); }));
    pair.cut();
    if (again) pair.b.fail_next_write = -EIO;
    REQUIRE(pair.connect(&pair.a, false));
    if (!again) {
      REQUIRE(pair.run([&] { return pair.connected(); }));
      CHECK(pair.disk(pair.b) == DiskState::kUpToDate);
      CHECK(pair.identical());
    } else {
      REQUIRE(pair.run([&] { return pair.disk(pair.b) == DiskState::kFailed; }));
      REQUIRE(
          pair.run([&] { return pair.a.volume().status().connection == Connection::kStandAlone; }));
    }
  }
}

// --- suspend ---

TEST_CASE("suspend: what failed waits, and is done again after resume") {
  FaultPair pair(OnIoError::kSuspend);
  pair.a.fail = [](const Io& io) { return is_data(io) && !is_flush(io) ? -EIO : 0; };
  Request* write = pair.write(pair.a, 0, 4096, 3);
  Request* read = pair.read(pair.a, kMiB, 4096);
  REQUIRE(pair.run([&] { return pair.a.volume().status().suspended; }));
  pair.run_for(20'000);
  Request* later = pair.write(pair.a, 2 * kMiB, 4096, 4);
  pair.run_for(20'000);
  for (Request* request : {write, read, later}) CHECK(request->result == 1);
  CHECK(pair.a.volume().status().suspend_reason.find("resume") != std::string::npos);
  pair.a.volume().resume();  // too early: it fails again
  pair.run_for(20'000);
  CHECK(pair.a.volume().status().suspended);
  for (Request* request : {write, read, later}) CHECK(request->result == 1);
  pair.a.fail = nullptr;
  pair.a.volume().resume();
  for (Request* request : {write, read, later}) {
    REQUIRE(pair.wait(request));
    CHECK(request->result == 0);
  }
  CHECK(pair.byte_at(pair.a, 0) == 3);
  CHECK(pair.byte_at(pair.b, 0) == 3);
  CHECK(pair.byte_at(pair.b, 2 * kMiB) == 4);
}

TEST_CASE("suspend: a failed flush is not tried again: after resume the requests fail") {
  FaultPair pair(OnIoError::kSuspend);
  bool failed = false;
  pair.a.fail = [&](const Io& io) {
    if (!is_flush(io) || failed) return 0;
    failed = true;
    return -EIO;
  };
  Request* flush = pair.flush(pair.a);
  REQUIRE(pair.run([&] { return pair.a.volume().status().suspended; }));
  Request* write = pair.write(pair.a, 0, 4096, 3);
  pair.run_for(20'000);
  CHECK(flush->result == 1);
  CHECK(write->result == 1);
  pair.a.volume().resume();
  REQUIRE(pair.wait(flush));
  REQUIRE(pair.wait(write));
  CHECK(flush->result == -EIO);
  CHECK(write->result == -EIO);
  CHECK(!pair.a.volume().status().suspended);
}

// --- detach ---

TEST_CASE("detach: what failed, what was under way and what comes later is done at the peer") {
  for (const Protocol protocol : {Protocol::kC, Protocol::kA}) {
    for (uint64_t round = 0; round < 12; ++round) {
      FaultPair pair(OnIoError::kDetach, protocol, round % 2 == 1, test_seed() + round);
      INFO("round " << round);
      const HandshakeState before = pair.state(pair.b);
      REQUIRE(pair.wait(pair.write(pair.a, 20 * kMiB, 4096, 77)));
      std::vector<Request*> requests;
      for (uint64_t i = 0; i < 20; ++i) {
        if (i == round) FaultPair::dies(pair.a);
        requests.push_back(
            pair.write(pair.a, i * kMiB + 512 * i, 8192, static_cast<uint8_t>(i + 1)));
        for (uint64_t steps = pair.random.below(60); steps > 0; --steps) pair.step();
      }
      requests.push_back(pair.write(pair.a, 22 * kMiB, 100'000, 0, 0, Op::kWriteZeroes));
      requests.push_back(pair.write(pair.a, 23 * kMiB, 70'001, 5, kRequestFua));  // unaligned end
      requests.push_back(pair.flush(pair.a));
      for (Request* request : requests) {
        REQUIRE(pair.wait(request));
        CHECK(request->result == 0);
      }
      CHECK(pair.disk(pair.a) == DiskState::kDiskless);
      CHECK(pair.connected());
      Request* large = pair.read(pair.a, 0, 3 * kMiB);
      REQUIRE(pair.wait(large));
      CHECK(large->result == 0);
      CHECK(std::equal(large->buffer, large->buffer + large->length, pair.b.data()));
      Request* old = pair.read(pair.a, 20 * kMiB + 1, 100);
      REQUIRE(pair.wait(old));
      CHECK(FaultPair::holds_only(old, 77));
      for (uint64_t i = 0; i < 20; ++i)
        CHECK(pair.byte_at(pair.b, i * kMiB + 512 * i + 8191) == i + 1);
      CHECK(pair.byte_at(pair.b, 23 * kMiB + 70'000) == 5);
      CHECK(pair.byte_at(pair.b, 23 * kMiB + 70'001) == 0);
      // R7: the copy that remains is known to be the newer one.
      const HandshakeState after = pair.state(pair.b);
      CHECK(after.current != before.current);
      CHECK(after.bitmap == before.current);
      CHECK(pair.state(pair.a).current == after.current);
      CHECK(pair.a.volume().status().remote_reads > 0);
      CHECK(pair.a.completed.size() == requests.size() + 3);
    }
  }
}

TEST_CASE("detach: without a peer that can take over the request fails, and the disk is kept") {
  FaultPair pair(OnIoError::kDetach);
  pair.cut();
  pair.a.fail = [](const Io& io) { return is_data_read(io) ? -EIO : 0; };
  Request* read = pair.read(pair.a, 0, 4096);
  REQUIRE(pair.wait(read));
  CHECK(read->result == -EIO);
  CHECK(pair.disk(pair.a) == DiskState::kUpToDate);
  pair.a.fail = nullptr;
  Request* write = pair.write(pair.a, 0, 4096, 1);
  REQUIRE(pair.wait(write));
  CHECK(write->result == 0);
}

TEST_CASE("detach: a peer that is lost before it answers takes nothing over") {
  FaultPair pair(OnIoError::kDetach);
  pair.b.holds = is_meta_write;
  pair.a.fail_next_write = -EIO;
  Request* request = pair.write(pair.a, 0, 4096, 1);
  pair.run_for(20'000);
  CHECK(request->result == 1);
  CHECK(pair.disk(pair.a) == DiskState::kFailed);
  Request* second = pair.write(pair.a, kMiB, 4096, 2);
  Request* read = pair.read(pair.a, kMiB, 4096);
  pair.run_for(20'000);
  CHECK(second->result == 1);
  CHECK(read->result == 1);
  pair.cut();
  for (Request* each : {request, second, read}) REQUIRE(pair.wait(each));
  CHECK(request->result == -EIO);
  CHECK(second->result == 0);
  CHECK(read->result == 0);
  CHECK(pair.disk(pair.a) == DiskState::kUpToDate);
  CHECK(pair.state(pair.a).dirty_chunks == 2);
}

TEST_CASE("detach: a peer that took over for nothing is the target, whatever it thinks") {
  for (const bool writes : {false, true}) {
    FaultPair pair(OnIoError::kDetach);
    const uint64_t before = pair.state(pair.b).current;
    pair.a.receive_bytes = 0;  // the answer gets lost
    pair.a.fail_next_write = -EIO;
    Request* request = pair.write(pair.a, 0, 4096, 1);
    REQUIRE(pair.run([&] { return pair.state(pair.b).current != before; }));
    pair.cut();
    pair.a.receive_bytes = SIZE_MAX;
    REQUIRE(pair.wait(request));
    CHECK(request->result == -EIO);
    if (writes) REQUIRE(pair.wait(pair.write(pair.a, kMiB, 4096, 2)));
    REQUIRE(pair.idle());
    const Agreed agreed = decide(pair);
    REQUIRE(agreed.possible);
    CHECK(agreed.source == &pair.a);
    REQUIRE(pair.connect(agreed.source, agreed.full));
    REQUIRE(pair.run([&] { return pair.connected(); }));
    CHECK(pair.identical());
  }
}

TEST_CASE("detach: a write completes only when it is durable at the peer") {
  FaultPair pair(OnIoError::kDetach, Protocol::kA);
  pair.detach();
  pair.b.holds = is_flush;
  Request* request = pair.write(pair.a, 0, 4096, 9);
  pair.run_for(50'000);
  CHECK(request->result == 1);
  pair.b.holds = nullptr;
  REQUIRE(pair.wait(request));
  CHECK(pair.b.disk().durable()[0] == 9);
}

TEST_CASE(
    "detach: a lost link suspends reads and writes, and nothing completed is lost with the peer") {
  for (uint64_t round = 0; round < 10; ++round) {
    FaultPair pair(OnIoError::kDetach, round % 2 == 0 ? Protocol::kC : Protocol::kA, false,
                   test_seed() + round);
    INFO("round " << round);
    pair.detach();
    std::vector<Request*> writes;
    std::vector<Request*> reads;
    for (uint64_t i = 0; i < 16; ++i) {
      writes.push_back(pair.write(pair.a, i * kMiB, 1u << (12 + i % 8), static_cast<uint8_t>(i + 1),
                                  i % 3 == 0 ? kRequestFua : 0));
      // The same range once more, behind it.
      if (i % 4 == 0)
        writes.push_back(pair.write(pair.a, i * kMiB, 4096, static_cast<uint8_t>(i + 100)));
      reads.push_back(pair.read(pair.a, 20 * kMiB, 4096 + 512 * i));
      for (uint64_t steps = pair.random.below(100); steps > 0; --steps) pair.step();
    }
    Request* flush = pair.flush(pair.a);
    for (uint64_t steps = pair.random.below(500); steps > 0; --steps) pair.step();
    std::vector<bool> done;
    for (Request* each : writes) done.push_back(each->result == 0);
    if (round % 3 == 0) {
      pair.cut();
    } else {
      pair.wire_up = false;
      pair.b.crash(round % 3 == 1);
      pair.a.volume().link_stop("cut");
      pair.b.attach();
    }
    pair.run_for(20'000);
    CHECK(pair.a.volume().status().suspended);
    CHECK(pair.a.volume().status().suspend_reason.find("peer") != std::string::npos);
    Request* waiting = pair.read(pair.a, 0, 4096);
    pair.run_for(20'000);
    CHECK(waiting->result == 1);
    REQUIRE(pair.connect(nullptr, false, pair.protocol));
    for (const std::vector<Request*>& list : {writes, reads, {flush, waiting}}) {
      for (Request* each : list) {
        REQUIRE(pair.wait(each));
        CHECK(each->result == 0);
      }
    }
    CHECK(!pair.a.volume().status().suspended);
    for (uint64_t i = 0; i < 16; ++i) {
      const uint8_t expected = static_cast<uint8_t>(i % 4 == 0 ? i + 100 : i + 1);
      CHECK(pair.byte_at(pair.b, i * kMiB) == expected);
    }
    CHECK(pair.a.completed.size() == writes.size() + reads.size() + 3);
    // Served again, the copy there keeps counting what the lost disk lacks.
    CHECK(pair.state(pair.b).bitmap != 0);
    CHECK(pair.state(pair.b).dirty_chunks >= 16);
  }
}

TEST_CASE("detach: the old disk comes back as the target, by map; its copy is not taken for new") {
  for (const bool metadata_dies : {false, true}) {
    FaultPair pair(OnIoError::kDetach);
    REQUIRE(pair.wait(pair.write(pair.a, 0, 4096, 1)));
    if (metadata_dies) {
      FaultPair::dies(pair.a);
    } else {
      pair.a.fail = [](const Io& io) { return is_data(io) ? -EIO : 0; };
    }
    for (uint64_t i = 0; i < 8; ++i)
      REQUIRE(pair.wait(pair.write(pair.a, i * 3 * kMiB, 4096, static_cast<uint8_t>(i + 2))));
    REQUIRE(pair.disk(pair.a) == DiskState::kDiskless);
    pair.run_for(10'000);
    pair.cut();
    pair.a.crash(true);
    pair.a.fail = nullptr;
    pair.a.attach();
    CHECK(pair.disk(pair.a) == (metadata_dies ? DiskState::kUpToDate : DiskState::kInconsistent));
    const HandshakeState a = pair.state(pair.a);
    const HandshakeState b = pair.state(pair.b);
    CHECK(a.current != b.current);
    CHECK(a.current == b.bitmap);  // rule 50: target, by map
    CHECK((b.slot_flags & kSlotServed) != 0);
    REQUIRE(pair.connect(&pair.b, false));
    REQUIRE(pair.run([&] { return pair.connected(); }));
    CHECK(pair.identical());
    CHECK(pair.byte_at(pair.a, 21 * kMiB) == 9);
    CHECK(pair.disk(pair.a) == DiskState::kUpToDate);
    CHECK((pair.state(pair.b).slot_flags & kSlotServed) == 0);
  }
}

TEST_CASE("detach: a copy that was written by somebody else meanwhile is not worked on") {
  FaultPair pair(OnIoError::kDetach);
  pair.detach();
  REQUIRE(pair.wait(pair.write(pair.a, 0, 4096, 1)));
  const uint64_t old_disk = pair.state(pair.b).bitmap;
  pair.cut();
  REQUIRE(pair.idle());
  int error = 1;
  REQUIRE(pair.finish([&](Done done) { pair.b.volume().promote(false, done); }, &error));
  REQUIRE(error == 0);
  REQUIRE(pair.wait(pair.write(pair.b, 0, 4096, 2)));
  CHECK(pair.state(pair.b).current != pair.state(pair.a).current);
  CHECK(pair.state(pair.b).bitmap == old_disk);  // the disk that was lost still counts from there
  REQUIRE(pair.finish([&](Done done) { pair.b.volume().demote(done); }, &error));
  CHECK(!pair.connect(nullptr, false));
}

TEST_CASE("detach: an error of the metadata is an error of the disk") {
  for (const bool apart : {false, true}) {
    FaultPair pair(OnIoError::kDetach, Protocol::kC, apart);
    pair.a.fail = [](const Io& io) { return is_meta_write(io) ? -ENOSPC : 0; };
    std::vector<Request*> requests;
    for (uint64_t i = 0; i < 12; ++i)
      requests.push_back(pair.write(pair.a, i * 2 * kMiB, 4096, static_cast<uint8_t>(i + 1)));
    for (Request* request : requests) {
      REQUIRE(pair.wait(request));
      CHECK(request->result == 0);
    }
    CHECK(pair.disk(pair.a) == DiskState::kDiskless);
    CHECK(pair.a.volume().status().disk_reason.find("space") != std::string::npos);
    for (uint64_t i = 0; i < 12; ++i) CHECK(pair.byte_at(pair.b, i * 2 * kMiB) == i + 1);
  }
}

TEST_CASE("detach: a diskless primary steps down and stops, and links with nobody afterwards") {
  for (const bool stops : {false, true}) {
    FaultPair pair(OnIoError::kDetach);
    pair.detach();
    REQUIRE(pair.wait(pair.write(pair.a, 0, 4096, 1)));
    CHECK(pair.end(pair.a, stops) == 0);
    REQUIRE(pair.run([&] { return !pair.connected(); }));
    if (!stops) CHECK(!pair.connect(nullptr, false));
  }
}

TEST_CASE("detach: when the device is taken away, what waits for the peer fails") {
  FaultPair pair(OnIoError::kDetach);
  pair.detach();
  pair.cut();
  std::vector<Request*> requests = {pair.write(pair.a, 0, 3 * kMiB, 1), pair.read(pair.a, 0, 4096),
                                    pair.write(pair.a, 0, 4096, 2), pair.write(pair.a, 100, 100, 3),
                                    pair.flush(pair.a)};
  pair.run_for(20'000);
  pair.a.volume().drop_suspended();
  for (Request* request : requests) CHECK(request->result == -EIO);
  int error = 1;
  REQUIRE(pair.finish([&](Done done) { pair.a.volume().demote(done); }, &error));
  CHECK(error == 0);
}

TEST_CASE("detach: a read that fails at the peer too fails its request") {
  FaultPair pair(OnIoError::kDetach);
  pair.detach();
  pair.b.fail = [](const Io& io) { return is_data_read(io) ? -EIO : 0; };
  Request* read = pair.read(pair.a, 0, 4096);
  REQUIRE(pair.wait(read));
  CHECK(read->result == -EIO);
  CHECK(pair.connected());
  pair.b.fail = nullptr;
  Request* write = pair.write(pair.a, 0, 4096, 4);
  REQUIRE(pair.wait(write));
  CHECK(write->result == 0);
}

TEST_CASE("a peer that lies about disks and reads costs its link") {
  const auto refused = [](const char* what, FrameType type, uint64_t offset, uint32_t length) {
    FaultPair pair(OnIoError::kDetach);
    INFO(what);
    pair.cut();
    pair.link_stranger(pair.a);
    FrameHeader header;
    header.type = type;
    header.offset = offset;
    header.length = length;
    header.sequence = 1;
    pair.say(pair.a, header);
    CHECK(pair.run([&] { return pair.a.volume().status().connection == Connection::kStandAlone; }));
  };
  refused("an answer to no read", FrameType::kReadFailed, 0, 4096);
  refused("a read of one that has a disk", FrameType::kRead, 0, 4096);
  refused("consent to nothing", FrameType::kDetachAck, 7, 0);
  refused("a secondary that lets go", FrameType::kDetach, 0, 0);
  refused("no such state", FrameType::kDisk, 2, 0);
}

// A peer that serves is the only good copy: an error there takes its word back, not the copy.
TEST_CASE("a copy that is served stays whole when its disk fails, and is served again") {
  for (const bool flush_fails : {false, true}) {
    FaultPair pair(OnIoError::kDetach);
    pair.detach();
    REQUIRE(pair.wait(pair.write(pair.a, 0, 4096, 1)));
    bool failed = false;
    pair.b.fail = [&](const Io& io) {
      if (failed || !is_data(io) || (flush_fails ? !is_flush(io) : io.kind != IoKind::kWrite))
        return 0;
      failed = true;
      return -EIO;
    };
    Request* request = pair.write(pair.a, kMiB, 4096, 2);
    REQUIRE(pair.run([&] { return pair.a.volume().status().suspended; }));
    CHECK(request->result == 1);
    pair.cut();
    pair.run_for(10'000);
    pair.b.crash(true);
    pair.b.attach();
    CHECK(pair.disk(pair.b) == DiskState::kConsistent);
    REQUIRE(pair.connect(nullptr, false));
    REQUIRE(pair.wait(request));
    CHECK(request->result == 0);
    CHECK(pair.byte_at(pair.b, 0) == 1);
    CHECK(pair.byte_at(pair.b, kMiB) == 2);
  }
}

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
      int error = 1;
      REQUIRE(pair.finish([&](Done done) { pair.a.volume().promote(false, done); }, &error));
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
