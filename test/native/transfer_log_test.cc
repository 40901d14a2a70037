#include "core/transfer_log.h"

#include <doctest/doctest.h>

#include <deque>

#include "random.h"

namespace tidemark {

TEST_CASE("transfer log: entries leave from the front when their epoch is durable there") {
  TransferLog log(4);
  log.reset(100, 7);
  CHECK(log.empty());
  CHECK(log.base() == 100);
  int owner = 0;
  TransferEntry& first = log.append({0, 4096}, false, &owner);
  CHECK(first.sequence == 100);
  CHECK(first.epoch == 7);
  CHECK(first.owner == &owner);
  log.append({4096, 512}, true, nullptr);
  CHECK(log.open_epoch_writes() == 2);
  CHECK(log.bytes() == 4608);
  CHECK_FALSE(log.acknowledge_epoch(7));  // never closed
  CHECK(log.close_epoch() == 7);
  CHECK(log.open_epoch() == 8);
  CHECK(log.open_epoch_writes() == 0);
  log.append({8192, 512}, false, nullptr);
  CHECK(log.front_durable() == nullptr);
  CHECK_FALSE(log.acknowledge_epoch(6));
  CHECK_FALSE(log.acknowledge_epoch(8));
  CHECK(log.closed_epochs() == 1);
  CHECK(log.acknowledge_epoch(7));
  CHECK_FALSE(log.acknowledge_epoch(7));
  REQUIRE(log.front_durable() != nullptr);
  CHECK(log.front_durable()->sequence == 100);
  log.pop_front();
  CHECK(log.find(100) == nullptr);
  CHECK(log.find(101)->resync);
  log.pop_front();
  CHECK(log.front_durable() == nullptr);
  CHECK(log.front()->sequence == 102);
  CHECK(log.find(103) == nullptr);
  CHECK(log.bytes() == 512);
}

TEST_CASE("transfer log: an epoch acknowledgement covers all older ones, empty ones too") {
  TransferLog log(8);
  log.reset(1, 1);
  log.append({0, 512}, false, nullptr);
  log.close_epoch();
  log.close_epoch();
  log.append({512, 512}, false, nullptr);
  log.close_epoch();
  CHECK(log.closed_epochs() == 3);
  CHECK(log.acknowledge_epoch(2));
  CHECK(log.closed_epochs() == 1);
  CHECK(log.front_durable()->sequence == 1);
  log.pop_front();
  CHECK(log.front_durable() == nullptr);
  CHECK_FALSE(log.acknowledge_epoch(1));
  CHECK(log.acknowledge_epoch(3));
  CHECK(log.front_durable()->sequence == 2);
}

TEST_CASE("transfer log: epoch numbers wrap") {
  TransferLog log(8);
  log.reset(UINT64_MAX - 100, UINT32_MAX - 1);
  for (int i = 0; i < 4; ++i) {
    log.append({0, 512}, false, nullptr);
    log.close_epoch();
  }
  CHECK(log.open_epoch() == 2);
  CHECK_FALSE(log.acknowledge_epoch(2));
  CHECK_FALSE(log.acknowledge_epoch(UINT32_MAX - 2));
  CHECK(log.acknowledge_epoch(UINT32_MAX));
  CHECK(log.closed_epochs() == 2);
  CHECK(log.acknowledge_epoch(1));
  while (log.front_durable() != nullptr) log.pop_front();
  CHECK(log.empty());
}

TEST_CASE("transfer log: when the link is gone all entries are taken, and a new one begins") {
  TransferLog log(3);
  log.reset(1, 1);
  for (int i = 0; i < 3; ++i) log.append({0, 512}, false, nullptr);
  CHECK(log.full());
  while (log.front() != nullptr) log.pop_front();
  CHECK(log.empty());
  CHECK(log.open_epoch_writes() == 0);
  log.reset(1, 1);
  CHECK(log.append({0, 512}, false, nullptr).sequence == 1);
}

TEST_CASE("transfer log: behaves as a queue over random histories") {
  test::Random random;
  INFO("TIDEMARK_SEED=", test::test_seed());
  TransferLog log(37);
  log.reset(5, UINT32_MAX - 50);
  struct Known {
    uint64_t sequence;
    uint64_t epoch;
    uint64_t length;
  };
  std::deque<Known> queue;
  uint64_t next = 5, epoch = UINT32_MAX - 50, durable = epoch - 1;
  for (int step = 0; step < 50000; ++step) {
    switch (random.below(4)) {
      case 0:
      case 1:
        if (log.full()) break;
        {
          const uint64_t length = 512 * random.between(1, 9);
          log.append({0, length}, false, nullptr);
          queue.push_back({next++, epoch, length});
        }
        break;
      case 2:
        REQUIRE(log.close_epoch() == static_cast<uint32_t>(epoch++));
        break;
      case 3: {
        const uint64_t to = random.between(durable - 2, epoch + 2);
        const bool right = to > durable && to < epoch;
        REQUIRE(log.acknowledge_epoch(static_cast<uint32_t>(to)) == right);
        if (right) durable = to;
        break;
      }
    }
    while (!queue.empty() && queue.front().epoch <= durable && random.chance(2)) {
      REQUIRE(log.front_durable() != nullptr);
      log.pop_front();
      queue.pop_front();
    }
    uint64_t bytes = 0;
    for (const Known& known : queue) {
      bytes += known.length;
      REQUIRE(log.find(known.sequence)->epoch == static_cast<uint32_t>(known.epoch));
    }
    REQUIRE(log.bytes() == bytes);
    REQUIRE(log.count() == queue.size());
    REQUIRE(log.next_sequence() == next);
    REQUIRE(log.base() == next - queue.size());
    REQUIRE(log.find(next) == nullptr);
    REQUIRE(log.find(log.base() - 1) == nullptr);
    const bool ready = !queue.empty() && queue.front().epoch <= durable;
    REQUIRE((log.front_durable() != nullptr) == ready);
  }
}

}  // namespace tidemark
