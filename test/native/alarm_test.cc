#include "engine/alarm.h"

#include <doctest/doctest.h>

#include "engine/engine.h"

namespace tidemark {
namespace {

constexpr uint64_t kLong = 3'600'000'000;
// A sleep that ends by itself was not ended by an alarm; no machine stands still for so long.
constexpr uint64_t kPatience = 60'000'000;

struct Rig {
  Rig() { REQUIRE(ring.open({}) == 0); }
  ~Rig() {
    alarm.cancel();
    while (ring.in_flight() > 0) REQUIRE(ring.turn(kPatience) >= 0);
  }
  // Until then; the completion of an update may end a sleep early.
  void sleep_until(uint64_t deadline_us) {
    while (monotonic_us() < deadline_us) {
      alarm.set(deadline_us);
      REQUIRE(ring.turn(kPatience) >= 0);
      REQUIRE(monotonic_us() < deadline_us + kPatience / 2);
    }
  }
  Ring ring;
  Alarm alarm{ring};
};

TEST_CASE("an alarm ends the sleep at its time, again and again") {
  Rig rig;
  for (int i = 0; i < 5; ++i) rig.sleep_until(monotonic_us() + 2000);
  CHECK(rig.ring.in_flight() == 0);
}

TEST_CASE("an alarm that has passed ends the sleep at once") {
  Rig rig;
  rig.alarm.set(1);
  CHECK(rig.ring.turn(kPatience) == 1);
}

TEST_CASE("an earlier time replaces a later one, and a later one leaves the earlier") {
  Rig rig;
  rig.alarm.set(monotonic_us() + kLong);
  rig.sleep_until(monotonic_us() + 2000);
  rig.alarm.set(monotonic_us() + kLong);
  const uint64_t in_flight = rig.ring.in_flight();
  CHECK(in_flight == 1);
  rig.alarm.set(monotonic_us() + 2 * kLong);
  CHECK(rig.ring.in_flight() == in_flight);
  rig.sleep_until(monotonic_us() + 2000);
}

TEST_CASE("without an alarm nothing is in the ring, and one that is taken back leaves it") {
  Rig rig;
  rig.alarm.set(UINT64_MAX);
  CHECK(rig.ring.in_flight() == 0);
  rig.alarm.cancel();
  CHECK(rig.ring.in_flight() == 0);
  rig.alarm.set(monotonic_us() + kLong);
  REQUIRE(rig.ring.turn(0) >= 0);
  CHECK(rig.ring.in_flight() == 1);
  rig.alarm.cancel();
  while (rig.ring.in_flight() > 0) REQUIRE(rig.ring.turn(kPatience) >= 0);
  rig.sleep_until(monotonic_us() + 2000);
}

}  // namespace
}  // namespace tidemark
