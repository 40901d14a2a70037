// How many bytes of a resync are under way at a time: enough to fill the wire and the target's
// disk, and little enough that an application's write, which travels behind them, waits little.
//
// Pure: told what happens and what time it is. While no application writes, the bound is fixed.
// While one does, it follows the time that a piece takes until it is written there: beyond the
// shortest time seen lately, which is that of the way itself, there is only what waits in some
// queue, and of that the resync may cause as much as kWaitUs. Every now and then it stays back for
// a moment, so that the shortest time does not become one that it causes itself.
//
// Who made the queue is not known. One of the application alone, of an asynchronous window or of
// many flushes, would leave the resync next to nothing for as long as it lasts: so it may always
// have a part of the bytes that the application has under way, and what makes kRateMin.
#pragma once

#include <algorithm>
#include <cstdint>

namespace tidemark {

class Pace {
 public:
  static constexpr uint64_t kPieceMin = 64u << 10;
  static constexpr uint64_t kPieceMax = 256u << 10;
  static constexpr uint64_t kWindowMin = 128u << 10;
  static constexpr uint64_t kWindowMax = 8u << 20;
  static constexpr uint64_t kWaitUs = 1'000;  // or an eighth of the shortest time, if that is more
  static constexpr uint64_t kPeriodUs = 10'000'000;
  static constexpr uint64_t kShare = 8;             // one byte for so many of the application
  static constexpr uint64_t kRateMin = 256u << 10;  // bytes a second

  // A piece is to be read and sent: whether it may begin, and its largest length.
  bool allows(uint64_t bytes) const { return under_way_ == 0 || under_way_ + bytes <= window(); }
  uint64_t piece_bytes() const;
  uint64_t window() const { return shared_ ? std::max(shared_window_, floor_) : kWindowMax; }
  uint64_t under_way() const { return under_way_; }

  void begin(uint64_t bytes) { under_way_ += bytes; }
  // Written there, or given up.
  void end(uint64_t bytes) { under_way_ -= bytes; }
  void sent(uint64_t sequence) { newest_ = sequence; }
  void written(uint64_t sequence) {
    probe_done_ = probe_done_ || sequence == probe_;
    if (sequence == newest_) newest_ = 0;
  }
  // In each turn before what it sends, and after it. `shared`: an application writes, too, and has
  // so many bytes under way.
  void turn(uint64_t now_us, bool shared, uint64_t application_bytes);
  void turned(uint64_t now_us);

 private:
  void learn(uint64_t taken_us);

  uint64_t under_way_ = 0;
  bool shared_ = false;
  uint64_t shared_window_ = kWindowMin;
  uint64_t floor_ = 0;   // whatever waits
  bool ramping_ = true;  // no queue was seen yet
  uint64_t newest_ = 0;  // sequence sent last in this turn and not yet acknowledged, or 0
  uint64_t probe_ = 0;   // sequence whose time is taken, 0 none
  uint64_t probe_us_ = 0;
  bool probe_done_ = false;
  uint64_t taken_us_ = 0;  // by the last probe
  // The shortest times of this period and of the one before.
  uint64_t shortest_us_ = UINT64_MAX;
  uint64_t shortest_before_us_ = UINT64_MAX;
  uint64_t period_end_us_ = 0;
};

}  // namespace tidemark
