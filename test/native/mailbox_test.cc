#include "engine/mailbox.h"

#include <doctest/doctest.h>

#include <thread>

namespace tidemark {
namespace {

TEST_CASE("every task wakes a sleeping owner, in order, and none after the end is taken") {
  constexpr int kTasks = 20'000;
  Mailbox mailbox;
  REQUIRE(mailbox.open() == 0);
  std::vector<int> ran;
  // The owner waits without a timeout: a lost ring of the doorbell hangs this test.
  std::thread owner([&] {
    Ring ring;
    REQUIRE(ring.open({}) == 0);
    mailbox.listen(ring);
    bool ended = false;
    while (!ended) {
      const uint64_t timeout_us = mailbox.sleep() ? UINT64_MAX : 0;
      REQUIRE(ring.turn(timeout_us) >= 0);
      mailbox.awake();
      for (const auto& task : mailbox.take()) {
        task();
        ended = ran.size() == kTasks;
      }
    }
    mailbox.unlisten();
    while (ring.in_flight() > 0) REQUIRE(ring.turn(1'000'000) >= 0);
    CHECK(mailbox.close().empty());
  });
  for (int i = 0; i < kTasks; ++i) {
    REQUIRE(mailbox.post([&ran, i] { ran.push_back(i); }));
    if (i % 16 == 0) std::this_thread::yield();
  }
  owner.join();
  bool ordered = true;
  for (int i = 0; i < kTasks; ++i) ordered &= ran[static_cast<size_t>(i)] == i;
  CHECK(ordered);
  CHECK_FALSE(mailbox.post([] {}));
}

}  // namespace
}  // namespace tidemark
