// A disk that is let go of, and the peer that serves in its place (docs/STATES.md).
#include <doctest/doctest.h>

#include <algorithm>
#include <span>
#include <string>
#include <vector>

#include "core/frame.h"
#include "core/volume_impl.h"
#include "fault_pair.h"

namespace tidemark::test {

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

// By map: both count from what they shared before, and what the disk here failed to write is
// marked.
TEST_CASE("detach: a peer that took over for nothing is the target, by map") {
  for (uint64_t round = 0; round < 24; ++round) {
    CAPTURE(round);
    const Protocol protocol = round % 2 == 0 ? Protocol::kC : Protocol::kA;
    FaultPair pair(OnIoError::kDetach, protocol, false, test_seed() + round);
    const uint64_t before = pair.state(pair.b).current;
    pair.a.receive_bytes = 0;  // the answer gets lost
    std::vector<Request*> requests;
    for (uint64_t i = 0; i < round; ++i) {  // under way when that happens
      requests.push_back(pair.write(pair.a, i * kMiB, 4096, static_cast<uint8_t>(i + 3)));
    }
    pair.a.fail_next_write = -EIO;
    requests.push_back(pair.write(pair.a, 0, 4096, 1));
    REQUIRE(pair.run([&] { return pair.state(pair.b).current != before; }));
    pair.cut();
    pair.a.receive_bytes = SIZE_MAX;
    uint64_t failed = 0;
    for (Request* request : requests) {
      REQUIRE(pair.wait(request));
      failed += request->result == -EIO;
    }
    CHECK(failed == 1);
    if (round % 3 != 0) REQUIRE(pair.wait(pair.write(pair.a, 23 * kMiB, 4096, 2)));
    // What a made apart has the offered generation in its past on disk, too.
    if (round % 6 == 5) {
      pair.a.crash(true);
      pair.a.attach();
    }
    if (round % 4 > 1) {
      if (round % 6 != 5) REQUIRE(pair.wait(pair.flush(pair.a)));
      pair.b.crash(round % 4 == 3);
      pair.b.attach();
    }
    REQUIRE(pair.idle());
    CHECK((pair.state(pair.b).slot_flags & kSlotServed) != 0);
    const Agreed agreed = decide(pair);
    REQUIRE(agreed.possible);
    CHECK(agreed.source == &pair.a);
    CHECK(!agreed.full);
    const bool breaks = round % 5 == 4;
    REQUIRE(pair.connect(agreed.source, agreed.full, protocol));
    if (breaks) {
      for (uint64_t steps = pair.random.below(200); steps > 0; --steps) pair.step();
      if (!pair.connected()) {
        pair.cut();
        REQUIRE(pair.idle());
        const Agreed again = decide(pair);
        REQUIRE(again.possible);
        CHECK(again.source == &pair.a);
        CHECK(!again.full);
        REQUIRE(pair.connect(again.source, again.full, protocol));
      }
    }
    REQUIRE(pair.run([&] { return pair.connected(); }));
    CHECK(pair.identical());
    CHECK(pair.state(pair.b).bitmap == kGenerationNone);
    CHECK(pair.state(pair.b).dirty_chunks == 0);
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

TEST_CASE("detach: what a device that was taken away had under way fails when the link ends") {
  FaultPair pair(OnIoError::kDetach);
  pair.detach();
  pair.wire_up = false;
  std::vector<Request*> requests = {pair.write(pair.a, 0, 3 * kMiB, 1), pair.read(pair.a, 0, 4096),
                                    pair.write(pair.a, 0, 4096, 2), pair.write(pair.a, 100, 100, 3),
                                    pair.flush(pair.a)};
  pair.run_for(1000);
  pair.a.volume().drop_suspended();
  int error = 1;
  pair.a.volume().demote([&](int result, const std::string&) { error = result; });
  for (Request* request : requests) CHECK(request->result == 1);
  pair.a.volume().link_stop("cut");
  pair.run_for(20'000);
  for (Request* request : requests) CHECK(request->result == -EIO);
  CHECK(error == 0);
  CHECK(pair.a.volume().status().role == Role::kSecondary);
}

TEST_CASE("detach: a device that is offered anew waits for the peer again") {
  FaultPair pair(OnIoError::kDetach);
  pair.detach();
  pair.a.volume().drop_suspended();
  pair.cut();
  Request* write = pair.write(pair.a, 0, 4096, 2);
  pair.run_for(20'000);
  CHECK(write->result == 1);
  REQUIRE(pair.connect(nullptr, false));
  REQUIRE(pair.wait(write));
  CHECK(write->result == 0);
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

TEST_CASE("a primary without a disk that reads no answers may ask for so many, and so long") {
  struct Case {
    uint32_t length;  // bytes
    uint32_t reads;   // at most
  };
  const auto of = [](uint32_t length) {
    return Case{length, std::min<uint32_t>(kRemoteReadsMax, kRemoteReadBytesMax / length)};
  };
  for (const auto& [length, most] : {of(4096), of(kFramePayloadMax)}) {
    FaultPair pair(OnIoError::kDetach);
    pair.detach();
    pair.read(pair.a, 0, 4096);
    pair.a.volume().poll(pair.now_us);
    REQUIRE(pair.a.wire_out.size() >= kFrameHeaderBytes);
    uint8_t bytes[kFrameHeaderBytes];
    std::copy_n(pair.a.wire_out.begin(), kFrameHeaderBytes, bytes);
    FrameHeader header;
    REQUIRE(parse_frame_header(bytes, &header) == FrameError::kNone);
    REQUIRE(header.type == FrameType::kRead);
    header.length = length;
    pair.b.wire_bytes = 0;
    Volume& volume = pair.b.volume();
    const auto ask = [&] {
      encode_frame_header(header, bytes);
      ++header.sequence;
      volume.link_input(bytes);
      while (pair.b.step_io()) {
      }
      return volume.status().connection;
    };
    for (uint32_t asked = 0; asked < most; ++asked) REQUIRE(ask() == Connection::kConnected);
    CHECK(ask() == Connection::kStandAlone);
    CHECK(pair.told(pair.b, EventKind::kLinkDown, "reads before it are not answered yet"));
  }
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

}  // namespace tidemark::test
