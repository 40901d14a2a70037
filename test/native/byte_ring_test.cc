#include "engine/byte_ring.h"

#include <doctest/doctest.h>

#include <condition_variable>
#include <cstring>
#include <mutex>
#include <thread>

namespace tidemark {
namespace {

constexpr size_t kBytes = 65536;

TEST_CASE("a ring refuses sizes that are no power of two or smaller than a page") {
  for (const size_t bytes : {size_t{0}, size_t{1024}, size_t{3 * 4096}}) {
    ByteRing ring;
    CHECK(ring.open(bytes) == -EINVAL);
  }
}

TEST_CASE("what is reserved and what is unread is contiguous across the end") {
  ByteRing ring;
  REQUIRE(ring.open(kBytes) == 0);
  std::memset(ring.reserve(kBytes - 100), 1, kBytes - 100);
  ring.commit(kBytes - 100);
  ring.publish();
  ring.consume(kBytes - 100);
  uint8_t* place = ring.reserve(kBytes);
  REQUIRE(place != nullptr);
  for (size_t i = 0; i < kBytes; ++i) place[i] = static_cast<uint8_t>(i * 7);
  CHECK(ring.unread().empty());
  ring.commit(kBytes);
  CHECK(ring.unread().empty());
  ring.publish();
  CHECK(ring.reserve(1) == nullptr);
  const auto unread = ring.unread();
  REQUIRE(unread.size() == kBytes);
  bool equal = true;
  for (size_t i = 0; i < kBytes; ++i) equal &= unread[i] == static_cast<uint8_t>(i * 7);
  CHECK(equal);
}

TEST_CASE(
    "an empty ring goes on at the front of its memory, and one with bytes stays where it is") {
  ByteRing ring;
  REQUIRE(ring.open(kBytes) == 0);
  const uint8_t* front = ring.reserve(1);
  for (int round = 0; round < 3; ++round) {
    std::memset(ring.reserve(300), round, 300);
    ring.commit(300);
    ring.rewind();  // committed, not shown yet
    ring.publish();
    ring.consume(100);
    ring.rewind();
    REQUIRE(ring.unread().size() == 200);
    CHECK(ring.unread().data() == front + 100);
    CHECK(ring.unread()[199] == round);
    CHECK(ring.space() == kBytes - 200);
    ring.consume(200);
    ring.rewind();
    CHECK(ring.unread().empty());
    CHECK(ring.space() == kBytes);
    CHECK(ring.reserve(1) == front);
  }
  ring.rewind();  // there already
  CHECK(ring.reserve(1) == front);
}

TEST_CASE("only a consumer that saw the ring empty is woken, and once") {
  ByteRing ring;
  REQUIRE(ring.open(kBytes) == 0);
  ring.commit(1);
  CHECK(ring.publish());  // nobody has looked yet: it counts as asleep
  ring.commit(1);
  CHECK_FALSE(ring.publish());
  ring.consume(2);
  ring.commit(1);
  CHECK_FALSE(ring.publish());  // it has not seen the ring empty
  ring.consume(1);
  CHECK(ring.unread_or_sleep().empty());
  CHECK_FALSE(ring.publish());  // nothing new
  ring.commit(1);
  CHECK(ring.publish());
}

TEST_CASE("a producer that asked for room is woken once") {
  ByteRing ring;
  REQUIRE(ring.open(kBytes) == 0);
  ring.commit(kBytes);
  ring.publish();
  CHECK_FALSE(ring.consume(1));
  CHECK(ring.want_room() == 1);
  CHECK(ring.consume(1));
  CHECK_FALSE(ring.consume(1));
}

// Both threads really sleep: a lost wake-up hangs this test.
struct Bell {
  void ring() {
    std::lock_guard lock(mutex);
    rung = true;
    condition.notify_one();
  }
  void wait() {
    std::unique_lock lock(mutex);
    condition.wait(lock, [this] { return rung; });
    rung = false;
  }
  std::mutex mutex;
  std::condition_variable condition;
  bool rung = false;
};

TEST_CASE("no byte and no wake-up is lost between two threads") {
  constexpr uint64_t kTotal = 8u << 20;
  ByteRing ring;
  REQUIRE(ring.open(4096) == 0);
  Bell data, room;
  std::thread consumer([&] {
    uint64_t position = 0;
    bool equal = true;
    while (position < kTotal) {
      const auto bytes = ring.unread_or_sleep();
      if (bytes.empty()) {
        data.wait();
        continue;
      }
      for (const uint8_t byte : bytes) equal &= byte == static_cast<uint8_t>(position++ * 31);
      if (ring.consume(bytes.size())) room.ring();
    }
    CHECK(equal);
  });
  uint64_t position = 0;
  for (uint32_t step = 1; position < kTotal; step = step * 5 % 1013 + 1) {
    const size_t bytes = std::min<uint64_t>(step, kTotal - position);
    while (ring.space() < bytes) {
      if (ring.want_room() >= bytes) break;
      room.wait();
    }
    uint8_t* place = ring.reserve(bytes);
    for (size_t i = 0; i < bytes; ++i) place[i] = static_cast<uint8_t>(position++ * 31);
    ring.commit(bytes);
    if (ring.publish()) data.ring();
  }
  consumer.join();
}

}  // namespace
}  // namespace tidemark
