#include "core/activity_log.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <deque>
#include <map>
#include <set>
#include <vector>

#include "random.h"

namespace tidemark {
namespace {

using Begin = ActivityLog::Begin;
using Hold = ActivityLog::Hold;

// Runs one transaction and gives a copy of it.
LogTransaction turn(ActivityLog& log, bool ok = true) {
  REQUIRE(log.transaction_wanted());
  const LogTransaction transaction = log.start_transaction();
  log.transaction_done(ok);
  return transaction;
}

void make_hot(ActivityLog& log, uint32_t first, uint32_t last) {
  for (uint32_t extent = first; extent <= last; ++extent) {
    if (log.begin(extent, extent, false) == Begin::kPending) {
      turn(log);
      REQUIRE(log.begin(extent, extent, false) == Begin::kHot);
    }
    log.release(extent, extent, Hold::kLocal);
  }
}

}  // namespace

TEST_CASE("activity log: a write is hot only after its extents' transaction is durable") {
  ActivityLog log(8, 100, 1);
  CHECK(log.max_extents_per_write() == 2);
  CHECK(log.begin(3, 4, true) == Begin::kPending);
  CHECK_FALSE(log.is_hot(3));
  CHECK(log.transaction_wanted());
  const LogTransaction& transaction = log.start_transaction();
  CHECK(transaction.number == 1);
  REQUIRE(transaction.updates.size() == 2);
  CHECK(transaction.updates[0].extent == 3);
  CHECK(transaction.updates[1].extent == 4);
  CHECK(transaction.evicted.empty());
  CHECK(transaction.context.size() == 8);
  CHECK(log.transaction_in_flight());
  CHECK_FALSE(log.transaction_wanted());
  CHECK(log.begin(3, 4, true) == Begin::kPending);
  CHECK_FALSE(log.transaction_wanted());
  log.transaction_done(true);
  CHECK_FALSE(log.transaction_wanted());  // what was in flight is not queued twice
  CHECK(log.begin(3, 4, true) == Begin::kHot);
  CHECK(log.hot() == 2);
  CHECK(log.references(3, Hold::kLocal) == 1);
  CHECK(log.references(4, Hold::kPeer) == 1);
  CHECK(log.begin(4, 4, false) == Begin::kHot);
  CHECK(log.references(4, Hold::kLocal) == 2);
  log.hold(4, 4, Hold::kPeer);
  CHECK(log.references(4, Hold::kPeer) == 2);
  CHECK(log.active() == std::vector<uint32_t>{3, 4});
  CHECK(log.next_number() == 2);
}

TEST_CASE("activity log: waiters share a transaction, and queue an extent once") {
  ActivityLog log(8, 100, 1);
  CHECK(log.begin(1, 2, false) == Begin::kPending);
  CHECK(log.begin(2, 3, false) == Begin::kPending);
  CHECK(log.begin(1, 2, false) == Begin::kPending);
  CHECK(turn(log).updates.size() == 3);
}

TEST_CASE("activity log: more extents than a quarter of the log are too many") {
  ActivityLog log(8, 100, 1);
  CHECK(log.begin(0, 2, false) == Begin::kTooMany);
  ActivityLog least(7, 100, 1);
  CHECK(least.max_extents_per_write() == 1);
  CHECK(least.begin(0, 1, false) == Begin::kTooMany);
}

TEST_CASE("activity log: the least recently used extent without references makes room") {
  ActivityLog log(7, 100, 1);
  make_hot(log, 0, 6);
  make_hot(log, 0, 0);  // used again: now 1 is the oldest
  CHECK(log.begin(50, 50, false) == Begin::kPending);
  const LogTransaction& transaction = log.start_transaction();
  CHECK(transaction.evicted == std::vector<uint32_t>{1});
  CHECK_FALSE(log.is_hot(1));  // from now on, not only when it is durable
  CHECK(log.is_hot(0));
  log.transaction_done(true);
  CHECK(log.active() == std::vector<uint32_t>{0, 2, 3, 4, 5, 6, 50});
}

TEST_CASE("activity log: an extent with a reference of either kind stays (R3)") {
  ActivityLog log(7, 100, 1);
  make_hot(log, 0, 6);
  for (uint32_t extent = 0; extent <= 6; ++extent) {
    CHECK(log.begin(extent, extent, true) == Begin::kHot);
    log.release(extent, extent, extent % 2 == 0 ? Hold::kLocal : Hold::kPeer);
  }
  CHECK(log.begin(50, 50, false) == Begin::kFull);
  CHECK_FALSE(log.transaction_wanted());
  CHECK(log.retire_idle(UINT64_MAX, 100) == 0);
  log.release(4, 4, Hold::kPeer);
  CHECK(log.begin(50, 50, false) == Begin::kPending);
  CHECK(turn(log).evicted == std::vector<uint32_t>{4});
}

TEST_CASE("activity log: a flush settles what rested before it began, and nothing else (R3)") {
  ActivityLog log(16, 100, 1);
  make_hot(log, 0, 15);
  CHECK_FALSE(log.settle_wanted());  // nothing is evicted
  CHECK(log.begin(50, 50, false) == Begin::kPending);
  CHECK_FALSE(turn(log).settled);
  CHECK(log.settle_wanted());

  CHECK(log.begin(2, 2, true) == Begin::kHot);
  const uint64_t flush = log.settle_begins();
  CHECK_FALSE(log.settle_wanted());
  make_hot(log, 1, 1);  // written while the flush is under way
  log.release(2, 2, Hold::kLocal);
  log.release(2, 2, Hold::kPeer);
  log.settled(flush);
  for (uint32_t extent = 51; extent <= 63; ++extent) {
    CHECK(log.begin(extent, extent, false) == Begin::kPending);
    const LogTransaction transaction = turn(log);
    CHECK(transaction.evicted == std::vector<uint32_t>{extent - 48});
    CHECK(transaction.settled);
  }
  CHECK(log.begin(64, 64, false) == Begin::kPending);
  const LogTransaction transaction = turn(log);
  CHECK(transaction.evicted == std::vector<uint32_t>{1});
  CHECK_FALSE(transaction.settled);
}

TEST_CASE("activity log: of two flushes that overlap, the later one counts for itself alone") {
  ActivityLog log(7, 100, 1);
  make_hot(log, 0, 5);
  const uint64_t earlier = log.settle_begins();
  make_hot(log, 6, 6);
  const uint64_t later = log.settle_begins();
  make_hot(log, 0, 0);
  log.settled(later);
  log.settled(earlier);
  for (const uint32_t extent : {1u, 2u, 3u, 4u, 5u, 6u}) {
    CHECK(log.begin(50 + extent, 50 + extent, false) == Begin::kPending);
    const LogTransaction transaction = turn(log);
    CHECK(transaction.evicted == std::vector<uint32_t>{extent});
    CHECK(transaction.settled);
  }
  CHECK(log.begin(60, 60, false) == Begin::kPending);
  CHECK_FALSE(turn(log).settled);
}

TEST_CASE("activity log: a slot set aside for a queued extent is not given away") {
  ActivityLog log(7, 100, 1);
  make_hot(log, 0, 6);
  for (uint32_t extent = 1; extent <= 6; ++extent)
    CHECK(log.begin(extent, extent, false) == Begin::kHot);
  CHECK(log.begin(50, 50, false) == Begin::kPending);  // will take the place of 0
  CHECK(log.begin(0, 0, false) == Begin::kFull);
  CHECK(log.begin(51, 51, false) == Begin::kFull);
  CHECK(turn(log).evicted == std::vector<uint32_t>{0});
  CHECK(log.begin(50, 50, false) == Begin::kHot);
}

TEST_CASE("activity log: what a pending write needs is not evicted by its own transaction") {
  ActivityLog log(8, 100, 1);
  make_hot(log, 0, 7);
  // 0 is the oldest, and needed together with 50.
  CHECK(log.begin(0, 0, false) == Begin::kHot);
  log.release(0, 0, Hold::kLocal);
  make_hot(log, 1, 7);
  ActivityLog pair(8, 100, 1);
  make_hot(pair, 10, 17);
  CHECK(pair.begin(9, 10, false) == Begin::kPending);
  CHECK(pair.begin(8, 9, false) == Begin::kPending);
  const LogTransaction transaction = turn(pair);
  CHECK(transaction.evicted == std::vector<uint32_t>{11, 12});
  CHECK(pair.begin(9, 10, false) == Begin::kHot);
  CHECK(pair.begin(8, 9, false) == Begin::kHot);
}

TEST_CASE("activity log: changes beyond one block wait for the next transaction") {
  ActivityLog log(400, 1000, 1);
  CHECK(log.begin(0, 99, false) == Begin::kPending);
  CHECK(turn(log).updates.size() == kLogUpdates);
  CHECK(log.begin(0, 99, false) == Begin::kPending);
  CHECK(turn(log).updates.size() == 100 - kLogUpdates);
  CHECK(log.begin(0, 99, false) == Begin::kHot);
}

TEST_CASE("activity log: idle extents retire, unless they are used before") {
  ActivityLog log(8, 100, 1);
  log.set_now(1000);
  make_hot(log, 0, 3);
  log.set_now(2000);
  make_hot(log, 4, 5);
  CHECK(log.retire_idle(1000, 100) == 0);
  CHECK(log.retire_idle(1500, 3) == 3);
  CHECK(log.retire_idle(1500, 3) == 1);
  CHECK(log.retire_idle(1500, 3) == 0);
  CHECK(log.begin(2, 2, false) == Begin::kHot);  // stays
  const LogTransaction& transaction = log.start_transaction();
  CHECK(transaction.evicted == std::vector<uint32_t>{0, 1, 3});
  for (const LogUpdate& update : transaction.updates) CHECK(update.extent == kExtentNone);
  CHECK(log.begin(0, 0, false) == Begin::kPending);  // it has left already
  log.transaction_done(true);
  CHECK(log.active() == std::vector<uint32_t>{2, 4, 5});
  turn(log);
  CHECK(log.is_hot(0));
  CHECK(log.retire_idle(1500, 100) == 0);
}

TEST_CASE(
    "activity log: after a failed transaction neither its additions nor its evictions are hot") {
  ActivityLog log(7, 100, 1);
  make_hot(log, 0, 6);
  CHECK(log.begin(50, 50, false) == Begin::kPending);
  turn(log, false);
  CHECK_FALSE(log.is_hot(50));
  CHECK_FALSE(log.is_hot(0));
  CHECK(log.hot() == 6);
  CHECK(log.begin(50, 50, false) == Begin::kPending);
}

TEST_CASE("activity log: any run of blocks as long as the table has parts carries all of it") {
  for (uint32_t extents : {7u, 880u, 881u, 1237u, 65534u}) {
    ActivityLog log(extents, 1 << 20, 1);
    const uint32_t parts = (extents + kLogContext - 1) / kLogContext;
    std::vector<std::vector<bool>> seen;
    for (uint32_t number = 0; number < parts + 3; ++number) {
      make_hot(log, number * 7, number * 7);
      // Every transaction covers one part; the last `parts` of them cover all.
      ActivityLog probe(extents, 10, number + 1);
      probe.begin(0, 0, false);
      const LogTransaction transaction = turn(probe);
      std::vector<bool> covered(extents);
      for (size_t i = 0; i < transaction.context.size(); ++i)
        covered[transaction.context_start + i] = true;
      seen.push_back(covered);
      if (seen.size() < parts) continue;
      for (uint32_t slot = 0; slot < extents; ++slot) {
        bool any = false;
        for (size_t i = seen.size() - parts; i < seen.size(); ++i) any = any || seen[i][slot];
        REQUIRE(any);
      }
      if (extents > 2000) break;
    }
  }
}

TEST_CASE("activity log: a waiter that is given up does not block the others for good") {
  ActivityLog log(7, 100, 1);
  make_hot(log, 0, 6);
  SUBCASE("one that was pending") {
    for (uint32_t extent = 50; extent < 57; ++extent)
      CHECK(log.begin(extent, extent, false) == Begin::kPending);
    turn(log);
    // Nobody comes for 50..56.
    CHECK(log.begin(1, 1, false) == Begin::kPending);
    turn(log);
    CHECK(log.begin(1, 1, false) == Begin::kHot);
  }
  SUBCASE("one that was pending, while others go on") {
    CHECK(log.begin(0, 0, false) == Begin::kHot);
    for (uint32_t extent = 50; extent < 53; ++extent) {
      CHECK(log.begin(extent, extent, false) == Begin::kPending);
    }
    turn(log);
    CHECK(log.is_hot(50));
    make_hot(log, 60, 75);
    for (uint32_t extent = 50; extent < 53; ++extent) CHECK_FALSE(log.is_hot(extent));
  }
  SUBCASE("one that starved") {
    for (uint32_t extent = 0; extent <= 6; ++extent)
      CHECK(log.begin(extent, extent, false) == Begin::kHot);
    for (int i = 0; i < 100; ++i) CHECK(log.begin(50, 50, false) == Begin::kFull);
    CHECK(log.begin(0, 0, false) == Begin::kFull);
    for (uint32_t extent = 0; extent <= 6; ++extent) log.release(extent, extent, Hold::kLocal);
    CHECK(log.begin(0, 0, false) == Begin::kHot);
  }
}

TEST_CASE("activity log: under hot writes without end a cold one gets in") {
  ActivityLog log(7, 100, 1);
  make_hot(log, 0, 6);
  for (uint32_t extent = 0; extent <= 6; ++extent)
    CHECK(log.begin(extent, extent, false) == Begin::kHot);
  bool in = false;
  std::vector<bool> held(7, true);
  for (int step = 0; step < 1000 && !in; ++step) {
    const uint32_t extent = static_cast<uint32_t>(step) % 7;
    // The next write of the extent comes before the last one has ended.
    const bool again = log.begin(extent, extent, false) == Begin::kHot;
    if (held[extent]) log.release(extent, extent, Hold::kLocal);
    held[extent] = again;
    const Begin cold = log.begin(50, 50, false);
    if (cold == Begin::kPending && log.transaction_wanted()) turn(log);
    in = cold == Begin::kHot;
  }
  CHECK(in);
}

namespace {

// A volume's use of the log: waiters are tried again in the order in which they came, after each
// transaction and release.
struct Writers {
  struct Write {
    uint32_t first, last;
    bool peer;
    int asked;
    bool local_held = true;
    bool peer_held = false;
  };
  ActivityLog& log;
  std::deque<Write> waiting;
  std::vector<Write> running;
  int longest_wait = 0;

  void ask(Write write, int now) {
    const Begin begun = log.begin(write.first, write.last, write.peer);
    REQUIRE(begun != Begin::kTooMany);
    if (begun == Begin::kHot) {
      for (uint32_t extent = write.first; extent <= write.last; ++extent)
        REQUIRE(log.is_hot(extent));
      longest_wait = std::max(longest_wait, now - write.asked);
      write.local_held = true;
      write.peer_held = write.peer;
      running.push_back(write);
    } else {
      waiting.push_back(write);
    }
  }
  void retry(int now) {
    std::deque<Write> again;
    again.swap(waiting);
    log.begin_retries();
    for (const Write& write : again) ask(write, now);
  }
  // Ends one of the kinds of hold of a running write.
  void end(size_t index) {
    Write& write = running[index];
    if (write.local_held) {
      write.local_held = false;
      log.release(write.first, write.last, Hold::kLocal);
    } else {
      write.peer_held = false;
      log.release(write.first, write.last, Hold::kPeer);
    }
    if (!write.local_held && !write.peer_held)
      running.erase(running.begin() + static_cast<ptrdiff_t>(index));
  }
};

}  // namespace

TEST_CASE("activity log: with many waiters on a small log every one makes progress") {
  test::Random random;
  INFO("TIDEMARK_SEED=", test::test_seed());
  int settled_evictions = 0;  // transactions that needed no flush
  for (int round = 0; round < 40; ++round) {
    const auto capacity =
        static_cast<uint32_t>(random.between(kExtentsMin, round % 4 == 0 ? 300 : 20));
    const auto extents = static_cast<uint32_t>(random.between(capacity, 1000));
    ActivityLog log(capacity, extents, 1);
    Writers writers{log, {}, {}, 0};
    const uint64_t arrivals = random.between(1, 4);
    std::set<uint32_t> durable;  // what the table on disk says
    LogTransaction out;
    uint64_t flush = 0;          // under way
    std::set<uint32_t> clean;    // not written since that flush began
    std::set<uint32_t> settled;  // not written since one that succeeded began
    const auto unsettle = [&] {
      for (const auto& write : writers.running) {
        for (uint32_t extent = write.first; extent <= write.last; ++extent) {
          clean.erase(extent);
          settled.erase(extent);
        }
      }
    };
    for (int step = 0; step < 6000; ++step) {
      log.set_now(static_cast<uint64_t>(step));
      const bool stop = step >= 4000;  // no new writes: all that wait get through
      if (!stop && writers.waiting.size() + writers.running.size() < 100) {
        for (uint64_t i = random.between(0, arrivals); i > 0; --i) {
          const auto most = std::min(log.max_extents_per_write(), extents);
          const auto count = static_cast<uint32_t>(random.between(1, most));
          const bool near = random.chance(2);  // some extents are busy all the time
          const auto first = static_cast<uint32_t>(
              random.below(near ? std::min(extents, capacity) - count + 1 : extents - count + 1));
          writers.ask({first, first + count - 1, random.chance(2), step}, step);
        }
        unsettle();
      }
      if (log.transaction_in_flight() && random.chance(3)) {
        for (const LogUpdate& update : out.updates) {
          if (update.extent != kExtentNone) durable.insert(update.extent);
        }
        log.transaction_done(true);
        const std::vector<uint32_t> active = log.active();
        REQUIRE(std::equal(active.begin(), active.end(), durable.begin(), durable.end()));
        writers.retry(step);
        unsettle();
      }
      if (!writers.running.empty() && (stop || random.chance(2))) {
        writers.end(random.below(writers.running.size()));
        writers.retry(step);
        unsettle();
      }
      if (random.chance(50)) log.retire_idle(static_cast<uint64_t>(std::max(0, step - 20)), 5);
      if (log.settle_wanted() && flush == 0 && random.chance(4)) {
        flush = log.settle_begins();
        clean.clear();
        for (const uint32_t extent : log.active()) {
          const bool written =
              log.references(extent, Hold::kLocal) + log.references(extent, Hold::kPeer) != 0;
          if (!written) clean.insert(extent);
        }
      } else if (flush != 0 && random.chance(20)) {
        log.settled(flush);
        flush = 0;
        settled.insert(clean.begin(), clean.end());
      }
      if (log.transaction_wanted() && random.chance(2)) {
        out = log.start_transaction();
        for (const uint32_t extent : out.evicted) {
          REQUIRE((!out.settled || settled.count(extent) == 1));
          settled.erase(extent);
          clean.erase(extent);
        }
        if (out.settled && !out.evicted.empty()) ++settled_evictions;
        REQUIRE(out.updates.size() <= kLogUpdates);
        REQUIRE(std::is_sorted(out.evicted.begin(), out.evicted.end()));
        for (uint32_t extent : out.evicted) {
          REQUIRE_FALSE(log.is_hot(extent));
          REQUIRE(durable.erase(extent) == 1);
          for (const auto& write : writers.running)
            REQUIRE((extent < write.first || extent > write.last));
        }
      }
      REQUIRE(log.hot() <= capacity);
    }
    REQUIRE(writers.waiting.empty());
    REQUIRE(writers.running.empty());
    // Fair: nobody waited for more than a small part of the run, though cold and hot writes never
    // stopped coming.
    REQUIRE(writers.longest_wait < 1500);
  }
  REQUIRE(settled_evictions > 0);
}

}  // namespace tidemark
