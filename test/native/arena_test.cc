#include "engine/arena.h"

#include <doctest/doctest.h>

#include <cerrno>
#include <cstring>
#include <random>
#include <vector>

namespace tidemark {
namespace {

constexpr size_t kBound = 16u << 20;

TEST_CASE("an arena below its smallest size is refused") {
  Arena arena;
  CHECK(arena.open(1u << 20) == -EINVAL);
}

TEST_CASE("buffers are aligned, and the last quarter is the core's") {
  Arena arena;
  REQUIRE(arena.open(kBound) == 0);
  std::vector<uint8_t*> buffers;
  while (uint8_t* buffer = arena.get(5000, false)) {
    CHECK(reinterpret_cast<uintptr_t>(buffer) % 4096 == 0);
    buffers.push_back(buffer);
  }
  CHECK(buffers.size() == kBound / 4 * 3 / 8192);
  uint8_t* last = arena.get(4096, true);
  CHECK(last != nullptr);
  CHECK_FALSE(arena.take_refilled());
  arena.put(last, 4096, true);
  CHECK(arena.take_refilled());
  CHECK_FALSE(arena.take_refilled());
  for (uint8_t* buffer : buffers) arena.put(buffer, 5000, false);
  CHECK(arena.used() == 0);
}

TEST_CASE("what the core has does not count against the frontends' part") {
  Arena arena;
  REQUIRE(arena.open(kBound) == 0);
  uint8_t* core = arena.get(4096, true);
  uint8_t* payload = arena.get(arena.largest(), false);
  CHECK(payload != nullptr);
  CHECK(arena.get(4096, false) == nullptr);
  arena.put(payload, arena.largest(), false);
  arena.put(core, 4096, true);
  CHECK(arena.used() == 0);
}

TEST_CASE("memory of small buffers serves large ones afterwards") {
  Arena arena;
  REQUIRE(arena.open(kBound) == 0);
  for (int round = 0; round < 2; ++round) {
    for (const size_t bytes : {size_t{4096}, size_t{1} << 20, size_t{100'000}}) {
      std::vector<uint8_t*> buffers;
      while (uint8_t* buffer = arena.get(bytes, true)) buffers.push_back(buffer);
      CHECK(buffers.size() >= kBound / (2 * bytes));
      for (uint8_t* buffer : buffers) arena.put(buffer, bytes, true);
      CHECK(arena.used() == 0);
    }
  }
}

TEST_CASE("buffers larger than the pooled ones count against the bound") {
  Arena arena;
  REQUIRE(arena.open(kBound) == 0);
  uint8_t* large = arena.get(12u << 20, false);
  REQUIRE(large != nullptr);
  CHECK(arena.get(4096, false) == nullptr);
  arena.put(large, 12u << 20, false);
  CHECK(arena.get((12u << 20) + 1, false) == nullptr);
}

TEST_CASE("no two buffers overlap under random use") {
  Arena arena;
  REQUIRE(arena.open(kBound) == 0);
  std::mt19937 random(7);
  struct Held {
    uint8_t* buffer;
    size_t bytes;
    uint8_t mark;
  };
  std::vector<Held> held;
  for (int step = 0; step < 20'000; ++step) {
    const size_t bytes = 1 + random() % (random() % 8 == 0 ? (2u << 20) : 20'000);
    if (random() % 2 == 0) {
      if (uint8_t* buffer = arena.get(bytes, true)) {
        const auto mark = static_cast<uint8_t>(random());
        buffer[0] = buffer[bytes - 1] = mark;
        held.push_back({buffer, bytes, mark});
      }
    } else if (!held.empty()) {
      std::swap(held[random() % held.size()], held.back());
      const Held last = held.back();
      REQUIRE(last.buffer[0] == last.mark);
      REQUIRE(last.buffer[last.bytes - 1] == last.mark);
      arena.put(last.buffer, last.bytes, true);
      held.pop_back();
    }
  }
  for (const Held& last : held) arena.put(last.buffer, last.bytes, true);
  CHECK(arena.used() == 0);
}

}  // namespace
}  // namespace tidemark
