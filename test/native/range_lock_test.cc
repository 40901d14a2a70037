#include "core/range_lock.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <vector>

#include "random.h"

namespace tidemark {
namespace {

struct Lock : RangeLock {
  Lock(uint64_t offset, uint64_t length, bool is_exclusive, std::vector<int>* order = nullptr,
       int name = 0)
      : order_(order), name_(name) {
    range = {offset, length};
    exclusive = is_exclusive;
    context = this;
    granted = [](void* self, RangeLock* lock) {
      auto* me = static_cast<Lock*>(self);
      REQUIRE(lock == me);
      REQUIRE(me->held);
      if (me->order_ != nullptr) me->order_->push_back(me->name_);
      if (me->then) me->then();
    };
  }
  std::function<void()> then;

 private:
  std::vector<int>* order_;
  int name_;
};

}  // namespace

TEST_CASE("range lock: writes that overlap wait, neighbours and shared reads do not") {
  RangeLocks locks;
  Lock a(0, 4096, true), b(4096, 4096, true), c(4095, 2, true), d(100, 10, false);
  CHECK(locks.idle());
  CHECK(locks.acquire(&a));
  CHECK(locks.acquire(&b));
  CHECK_FALSE(locks.acquire(&c));
  CHECK_FALSE(locks.acquire(&d));
  CHECK(locks.conflicts({0, 1}, false));
  CHECK_FALSE(locks.conflicts({8192, 1}, true));
  CHECK(locks.held() == 2);
  CHECK(locks.waiting() == 2);
  locks.release(&a);
  CHECK(d.held);
  CHECK_FALSE(c.held);
  Lock e(105, 1, false);
  CHECK(locks.acquire(&e));
  CHECK(locks.conflicts({105, 1}, true));
  CHECK_FALSE(locks.conflicts({105, 1}, false));
  locks.release(&b);
  CHECK(c.held);
  for (Lock* lock : {&c, &d, &e}) locks.release(lock);
  CHECK(locks.idle());
}

TEST_CASE("range lock: a reader that came after a waiting writer does not overtake it") {
  RangeLocks locks;
  std::vector<int> order;
  Lock reader(0, 100, false), writer(50, 100, true, &order, 1), late(0, 60, false, &order, 2);
  CHECK(locks.acquire(&reader));
  CHECK_FALSE(locks.acquire(&writer));
  CHECK_FALSE(locks.acquire(&late));
  locks.release(&reader);
  CHECK(order == std::vector<int>{1});
  locks.release(&writer);
  CHECK(order == std::vector<int>{1, 2});
  locks.release(&late);
}

TEST_CASE("range lock: locks are granted oldest first") {
  RangeLocks locks;
  std::vector<int> order;
  Lock wide(0, 1000, true);
  CHECK(locks.acquire(&wide));
  std::vector<std::unique_ptr<Lock>> waiters;
  for (int i = 0; i < 100; ++i) {
    waiters.push_back(std::make_unique<Lock>((i * 37) % 100 * 10, 10, true, &order, i));
    CHECK_FALSE(locks.acquire(waiters.back().get()));
  }
  locks.release(&wide);
  REQUIRE(order.size() == 100);
  CHECK(std::is_sorted(order.begin(), order.end()));
  for (auto& waiter : waiters) locks.release(waiter.get());
}

TEST_CASE("range lock: one that stops waiting lets those behind it go") {
  RangeLocks locks;
  std::vector<int> order;
  Lock reader(0, 10, false), writer(0, 10, true, &order, 1), late(0, 10, false, &order, 2);
  CHECK(locks.acquire(&reader));
  CHECK_FALSE(locks.acquire(&writer));
  CHECK_FALSE(locks.acquire(&late));
  locks.release(&writer);
  CHECK(order == std::vector<int>{2});
  locks.release(&reader);
  locks.release(&late);
}

TEST_CASE("range lock: a grant may acquire, release itself and take back another grant") {
  RangeLocks locks;
  std::vector<int> order;
  Lock wide(0, 100, true), first(0, 10, true, &order, 1), second(10, 10, true, &order, 2),
      third(0, 5, true, &order, 3), fourth(50, 10, true);
  CHECK(locks.acquire(&wide));
  CHECK_FALSE(locks.acquire(&first));
  CHECK_FALSE(locks.acquire(&second));
  CHECK_FALSE(locks.acquire(&third));
  first.then = [&] {
    CHECK(second.held);      // granted too, its call still due
    locks.release(&second);  // and now it never comes
    CHECK(locks.acquire(&fourth));
    locks.release(&first);  // lets the third go, called after this one
    CHECK(order == std::vector<int>{1});
  };
  locks.release(&wide);
  CHECK(order == std::vector<int>{1, 3});
  locks.release(&third);
  locks.release(&fourth);
  CHECK(locks.idle());
}

TEST_CASE("range lock: grants as a plain list of all locks would, over random histories") {
  test::Random random;
  INFO("TIDEMARK_SEED=", test::test_seed());
  for (int round = 0; round < 20; ++round) {
    RangeLocks locks;
    std::vector<int> order;
    std::vector<std::unique_ptr<Lock>> all;  // in order of asking
    const uint64_t span = 1ull << random.between(4, 16);
    const uint64_t population = random.between(2, 300);
    const auto blocked = [&](const Lock* lock) {
      for (const auto& other : all) {
        if (other.get() == lock) return false;
        if (other->range.overlaps(lock->range) && (other->exclusive || lock->exclusive))
          return true;
      }
      return false;
    };
    for (int step = 0; step < 2000; ++step) {
      if (all.size() < population && !random.chance(3)) {
        const uint64_t offset = random.below(span);
        const uint64_t length = random.chance(10) ? random.between(1, span) : random.between(1, 8);
        auto lock = std::make_unique<Lock>(offset, length, !random.chance(3), &order, step);
        all.push_back(std::move(lock));
        Lock* last = all.back().get();
        const bool expected = !blocked(last);
        RangeLock probe = *last;
        REQUIRE(locks.conflicts(probe.range, probe.exclusive) == !expected);
        REQUIRE(locks.acquire(last) == expected);
      } else if (!all.empty()) {
        const size_t victim = random.below(all.size());
        order.clear();
        std::vector<RangeLock*> waiting;
        for (auto& lock : all) {
          if (!lock->held) waiting.push_back(lock.get());
        }
        std::unique_ptr<Lock> gone = std::move(all[victim]);
        all.erase(all.begin() + static_cast<ptrdiff_t>(victim));
        locks.release(gone.get());
        REQUIRE(std::is_sorted(order.begin(), order.end()));
      }
      uint32_t held = 0;
      for (auto& lock : all) {
        REQUIRE(lock->held == !blocked(lock.get()));
        held += lock->held;
      }
      REQUIRE(locks.held() == held);
      REQUIRE(locks.waiting() == all.size() - held);
    }
    while (!all.empty()) {
      std::unique_ptr<Lock> gone = std::move(all.back());
      all.pop_back();
      locks.release(gone.get());
    }
    REQUIRE(locks.idle());
  }
}

TEST_CASE("range lock: thousands of locks over one long range are quick") {
  RangeLocks locks;
  std::vector<std::unique_ptr<Lock>> all;
  for (uint64_t i = 0; i < 20000; ++i) {
    all.push_back(std::make_unique<Lock>(i * 8192 + 1, 4096, true));
    REQUIRE(locks.acquire(all.back().get()));
  }
  Lock wide(0, uint64_t{1} << 40, true);
  CHECK_FALSE(locks.acquire(&wide));
  CHECK(wide.waiting_for == 20000);
  for (auto& lock : all) locks.release(lock.get());
  CHECK(wide.held);
  locks.release(&wide);
}

}  // namespace tidemark
