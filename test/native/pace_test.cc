// What bounds a resync: the time that its pieces take.
#include "core/pace.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <deque>

namespace tidemark {
namespace {

// A way of a fixed time in front of a disk or wire of a fixed speed, on which the resync keeps as
// much as it may.
struct Course {
  uint64_t way_us;
  uint64_t bytes_per_us;
  uint64_t application_bytes = 0;  // of the application, ahead
  Pace pace = {};
  uint64_t now_us = 1'000;
  uint64_t free_us = 0;  // when the wire is done with all that was sent
  uint64_t sequence = 0;
  uint64_t moved = 0;

  struct Piece {
    uint64_t sequence;
    uint64_t bytes;
    uint64_t written_us;
  };
  std::deque<Piece> pieces = {};

  void run(uint64_t us, bool shared) {
    for (const uint64_t end = now_us + us; now_us < end; now_us += 10) {
      while (!pieces.empty() && pieces.front().written_us <= now_us) {
        pace.written(pieces.front().sequence);
        pace.end(pieces.front().bytes);
        moved += pieces.front().bytes;
        pieces.pop_front();
      }
      pace.turn(now_us, shared, application_bytes);
      for (uint64_t bytes = pace.piece_bytes(); pace.allows(bytes); bytes = pace.piece_bytes()) {
        pace.begin(bytes);
        pace.sent(++sequence);
        free_us = std::max(free_us, now_us) + bytes / bytes_per_us;
        pieces.push_back({sequence, bytes, free_us + way_us});
      }
      pace.turned(now_us);
    }
  }
  // Behind how much a write of the application would wait that is sent now.
  uint64_t queue_us() const { return free_us > now_us ? free_us - now_us : 0; }
};

}  // namespace

TEST_CASE("a resync alone keeps all under way that it may") {
  Course course{100, 1'000};
  course.run(100'000, false);
  CHECK(course.pace.window() == Pace::kWindowMax);
  CHECK(course.pace.under_way() > Pace::kWindowMax - Pace::kPieceMax);
  CHECK(course.pace.piece_bytes() == Pace::kPieceMax);
}

TEST_CASE("a resync beside an application leaves a short queue, and still uses the wire") {
  for (const uint64_t bytes_per_us : {100u, 1'000u}) {
    Course course{100, bytes_per_us};
    INFO("MB/s " << bytes_per_us);
    course.run(500'000, true);
    course.moved = 0;
    for (uint32_t i = 0; i < 100; ++i) {
      course.run(10'000, true);
      // One piece is the least that can be sent.
      CHECK(course.queue_us() <= 2 * Pace::kWaitUs + Pace::kPieceMax / bytes_per_us);
    }
    CHECK(course.moved > bytes_per_us * 1'000'000 / 2);
  }
}

TEST_CASE("a long way does not count as a queue") {
  Course course{20'000, 100};  // 2 MB are under way on the wire
  course.run(3'000'000, true);
  course.moved = 0;
  course.run(1'000'000, true);
  CHECK(course.moved > 60 * 1'000'000);
  CHECK(course.queue_us() < 10'000);
}

TEST_CASE("a queue that the resync made alone is gone soon after an application begins") {
  Course course{100, 1'000};
  course.run(1'000'000, false);
  REQUIRE(course.queue_us() > 3 * Pace::kWaitUs);
  course.run(50'000, true);
  CHECK(course.queue_us() <= 2 * Pace::kWaitUs);
}

TEST_CASE("a resync gets on however long and uneven the queue is that the application makes") {
  for (const uint64_t longest_us : {4'000'000u, 20'000'000u}) {
    INFO("queue of us " << longest_us);
    Course course{100, 100};
    course.run(1'000'000, true);
    // A flush of the application after each of its writes: many, of few bytes.
    uint64_t us = 0;
    for (uint32_t i = 0; us < 20 * longest_us; us += longest_us / 4, ++i) {
      if (us < 2 * longest_us) course.moved = 0;  // what was sent before the queue
      course.way_us = longest_us / 8 * (2 + i % 7);
      course.run(longest_us / 4, true);
    }
    us -= 2 * longest_us;
    CHECK(course.moved / (us / 1'000'000) > Pace::kRateMin * 2 / 3);
  }
}

TEST_CASE("a resync has its share beside an application that keeps much under way") {
  Course course{2'000'000, 10, 16u << 20};
  course.run(1'000'000, true);
  CHECK(course.pace.window() == (16u << 20) / Pace::kShare);
  course.application_bytes = 1u << 30;
  course.run(10, true);
  CHECK(course.pace.window() == Pace::kWindowMax);
  course.application_bytes = 4096;
  course.run(4'000'000, true);
  CHECK(course.pace.window() < 1u << 20);
}

TEST_CASE("the shortest time is found again when the way has become longer") {
  Course course{100, 1'000};
  course.run(1'000'000, true);
  course.way_us = 5'000;
  course.run(3 * Pace::kPeriodUs, true);
  course.moved = 0;
  course.run(1'000'000, true);
  CHECK(course.moved > 200 * 1'000'000);
}

TEST_CASE("what was acknowledged before its time was taken does not stop the taking of times") {
  Pace pace;
  pace.turn(0, true, 0);
  pace.begin(Pace::kPieceMin);
  pace.sent(1);
  pace.written(1);  // in the same turn
  pace.end(Pace::kPieceMin);
  pace.turned(0);
  const uint64_t before = pace.window();
  for (uint64_t sequence = 2; sequence < 10; ++sequence) {
    pace.turn(sequence * 1'000, true, 0);
    pace.begin(Pace::kPieceMin);
    pace.sent(sequence);
    pace.turned(sequence * 1'000);
    pace.written(sequence);
    pace.end(Pace::kPieceMin);
  }
  CHECK(pace.window() > before);
}

}  // namespace tidemark
