#include "engine/ring.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <vector>

namespace tidemark {
namespace {

struct Counter : Completion {
  Counter() {
    done = [](Completion* self, int32_t result, uint32_t) {
      auto* counter = static_cast<Counter*>(self);
      ++counter->count;
      counter->last = result;
    };
  }
  int count = 0;
  int32_t last = 0;
};

void nop(Ring& ring, Completion* completion) { ring.sqe(completion)->opcode = IORING_OP_NOP; }

TEST_CASE("a ring delivers every completion when far more is queued than the queues hold") {
  for (const bool wide : {false, true}) {
    Ring ring;
    REQUIRE(ring.open({.entries = 8, .sqe128 = wide}) == 0);
    Counter counter;
    for (int i = 0; i < 1000; ++i) nop(ring, &counter);
    CHECK(ring.in_flight() == 1000);
    for (int i = 0; i < 1000 && ring.in_flight() > 0; ++i) REQUIRE(ring.turn(1'000'000) >= 0);
    CHECK(counter.count == 1000);
    CHECK(ring.in_flight() == 0);
  }
}

TEST_CASE("a completion may queue the next one") {
  Ring ring;
  REQUIRE(ring.open({.entries = 4}) == 0);
  struct Chain : Completion {
    Ring* ring;
    int left = 100;
  } chain;
  chain.ring = &ring;
  chain.done = [](Completion* self, int32_t, uint32_t) {
    auto* me = static_cast<Chain*>(self);
    if (--me->left > 0) nop(*me->ring, me);
  };
  nop(ring, &chain);
  while (ring.in_flight() > 0) REQUIRE(ring.turn(1'000'000) >= 0);
  CHECK(chain.left == 0);
}

TEST_CASE("a turn with nothing to do ends at its timeout") {
  Ring ring;
  REQUIRE(ring.open({}) == 0);
  CHECK(ring.turn(0) == 0);
  const auto start = std::chrono::steady_clock::now();
  CHECK(ring.turn(20'000) == 0);
  CHECK(std::chrono::steady_clock::now() - start >= std::chrono::milliseconds(19));
}

TEST_CASE("bytes and errors of system calls arrive as results") {
  Ring ring;
  REQUIRE(ring.open({}) == 0);
  int pipe_fds[2];
  REQUIRE(pipe(pipe_fds) == 0);
  char buffer[8] = {};
  Counter counter;
  io_uring_sqe* sqe = ring.sqe(&counter);
  sqe->opcode = IORING_OP_READ;
  sqe->fd = pipe_fds[0];
  sqe->addr = reinterpret_cast<uint64_t>(buffer);
  sqe->len = sizeof buffer;
  CHECK(ring.turn(0) == 0);
  REQUIRE(write(pipe_fds[1], "tide", 4) == 4);
  REQUIRE(ring.turn(1'000'000) == 1);
  CHECK(counter.last == 4);
  CHECK(std::memcmp(buffer, "tide", 4) == 0);

  sqe = ring.sqe(&counter);
  sqe->opcode = IORING_OP_FSYNC;
  sqe->fd = -1;
  REQUIRE(ring.turn(1'000'000) == 1);
  CHECK(counter.last == -EBADF);
  close(pipe_fds[0]);
  close(pipe_fds[1]);
}

}  // namespace
}  // namespace tidemark
