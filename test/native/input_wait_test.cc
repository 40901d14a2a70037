// Frames that the volume holds back: its owner is told when it is to give them again, and not
// before. Without that they would wait for the peer's next bytes.
#include <doctest/doctest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "core/frame.h"
#include "core/volume_impl.h"
#include "pair.h"

namespace tidemark::test {
namespace {

// b, linked with a stranger who says what the test says.
struct Held : Pair {
  Held() : Pair(test_seed()) {
    cut();
    REQUIRE(run([&] { return b.volume().handshake_state(stranger).idle; }));
  }
  Volume& volume() { return b.volume(); }
  void ping() {
    FrameHeader header;
    header.type = FrameType::kPing;
    say(b, header);
  }
  void barrier(uint32_t epoch, uint64_t last, uint64_t writes, uint8_t flags = 0) {
    FrameHeader header;
    header.type = FrameType::kBarrier;
    header.flags = flags;
    header.epoch = epoch;
    header.sequence = last;
    header.offset = writes;
    say(b, header);
  }
  void zeroes(uint32_t epoch, uint64_t number) {
    FrameHeader header;
    header.type = FrameType::kZeroes;
    header.sequence = number;
    header.epoch = epoch;
    header.offset = number % 1000 * 4096;
    header.length = 4096;
    say(b, header);
  }
  size_t give() { return World::give(b); }
  void settle() { World::settle(b); }
  // Something is there, in vain.
  void check_held() {
    CHECK_FALSE(b.wire_in.empty());
    CHECK(give() == 0);
    CHECK_FALSE(volume().takes_input());
  }
  void check_goes_on() {
    CHECK(volume().takes_input());
    CHECK(give() > 0);
    CHECK(b.wire_in.empty());
    CHECK_FALSE(volume().takes_input());
    CHECK(volume().status().connection == Connection::kConnected);
  }
};

}  // namespace

TEST_CASE("input: nothing is asked for when nothing, or half of a frame, was left") {
  Held held;
  held.link_stranger(held.b);
  CHECK(held.give() == 0);
  CHECK_FALSE(held.volume().takes_input());
  held.ping();
  const uint8_t last = held.b.wire_in.back();
  held.b.wire_in.pop_back();
  held.check_held();
  held.b.wire_in.push_back(last);
  CHECK(held.give() == kFrameHeaderBytes);
  CHECK_FALSE(held.volume().takes_input());
}

TEST_CASE("input: what came before the link began is asked for when it does") {
  Held held;
  int error = 1;
  held.volume().link_prepare(held.stranger_params(held.b),
                             [&](int result, const std::string&) { error = result; });
  REQUIRE(held.run([&] { return error <= 0; }));
  REQUIRE(error == 0);
  held.ping();
  held.check_held();
  REQUIRE(held.volume().link_start());
  held.check_goes_on();
}

TEST_CASE("input: what is behind an ordering barrier is asked for when that is durable") {
  Held held;
  held.link_stranger(held.b);
  held.b.holds = is_flush;
  held.barrier(1, 0, 0, kFrameHard);
  held.zeroes(2, 1);
  CHECK(held.give() == kFrameHeaderBytes);
  held.settle();
  held.check_held();
  held.b.holds = nullptr;
  held.settle();
  held.check_goes_on();
}

TEST_CASE("input: what came during a change of the role is asked for at its end") {
  Held held;
  held.link_stranger(held.b);
  held.b.holds = is_meta_write;
  int error = 1;
  held.volume().promote(true, [&](int result, const std::string&) { error = result; });
  REQUIRE(error == 1);
  held.settle();
  held.ping();
  held.check_held();
  held.b.holds = nullptr;
  while (error > 0 && held.b.step_io()) held.volume().poll(held.now_us);
  REQUIRE(error == 0);
  held.check_goes_on();
}

TEST_CASE("input: a write that waits for others to be done is asked for when one of them is") {
  Held held;
  held.link_stranger(held.b);
  held.b.hang = true;
  for (uint32_t i = 1; i <= kReceivedWritesMax + 1; ++i) held.zeroes(1, i);
  CHECK(held.give() == kReceivedWritesMax * kFrameHeaderBytes);
  held.settle();
  held.check_held();
  held.b.hang = false;
  while (!held.volume().takes_input() && held.b.step_io()) {
    held.volume().poll(held.now_us);
  }
  held.check_goes_on();
}

TEST_CASE("input: a barrier that waits for older epochs is asked for when one is durable") {
  Held held;
  held.link_stranger(held.b);
  held.b.holds = is_flush;
  for (uint32_t i = 1; i <= kReceivedEpochsMax + 1; ++i) held.barrier(i, 0, 0);
  CHECK(held.give() == kReceivedEpochsMax * kFrameHeaderBytes);
  held.settle();
  held.check_held();
  held.b.holds = nullptr;
  held.settle();
  held.check_goes_on();
}

// The owner knows when it has memory; asked all the time it would not sleep until then.
TEST_CASE("input: a write that waits for memory is not asked for") {
  Held held;
  held.link_stranger(held.b);
  const std::vector<uint8_t> payload(4096, 'x');
  FrameHeader header;
  header.type = FrameType::kData;
  header.sequence = 1;
  header.epoch = 1;
  header.length = static_cast<uint32_t>(payload.size());
  held.say(held.b, header, payload);
  held.b.buffers_fail_one_in = 1;
  held.check_held();
  held.b.buffers_fail_one_in = 0;
  CHECK_FALSE(held.volume().takes_input());
  CHECK(held.give() == kFrameHeaderBytes + payload.size());
  CHECK(held.volume().status().connection == Connection::kConnected);
}

TEST_CASE("input: what is left of a link that ended is asked for once, and discarded") {
  Held held;
  held.link_stranger(held.b);
  held.b.holds = is_flush;
  held.barrier(1, 0, 0, kFrameHard);
  held.ping();
  CHECK(held.give() == kFrameHeaderBytes);
  held.check_held();
  held.volume().link_stop("the test says so");
  CHECK(held.volume().takes_input());
  CHECK(held.give() == kFrameHeaderBytes);
  CHECK(held.b.wire_in.empty());
  CHECK_FALSE(held.volume().takes_input());
  held.b.holds = nullptr;
  held.settle();
  CHECK_FALSE(held.volume().takes_input());
}

}  // namespace tidemark::test
