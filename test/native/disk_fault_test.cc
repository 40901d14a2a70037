// Disks that fail under pass-on and suspend, and a secondary's (docs/STATES.md).
#include <doctest/doctest.h>

#include <vector>

#include "fault_pair.h"

namespace tidemark::test {

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

TEST_CASE("suspend: what a device that was taken away had under way fails, and waits for nobody") {
  FaultPair pair(OnIoError::kSuspend);
  pair.a.fail = [](const Io& io) { return is_data(io) && !is_flush(io) ? -EIO : 0; };
  Request* write = pair.write(pair.a, 0, 4096, 3);
  Request* read = pair.read(pair.a, kMiB, 4096);
  pair.a.volume().drop_suspended();
  int error = 1;
  pair.a.volume().demote([&](int result, const std::string&) { error = result; });
  pair.run_for(100'000);
  CHECK(write->result == -EIO);
  CHECK(read->result == -EIO);
  CHECK(error == 0);
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

}  // namespace tidemark::test
