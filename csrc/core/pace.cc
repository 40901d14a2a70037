#include "core/pace.h"

#include <algorithm>

namespace tidemark {

uint64_t Pace::piece_bytes() const {
  const uint64_t part = window() / 16 & ~uint64_t{4095};
  return std::clamp(part, kPieceMin, kPieceMax);
}

void Pace::turn(uint64_t now_us, bool shared, uint64_t application_bytes) {
  shared_ = shared;
  if (probe_done_) {
    learn(now_us - probe_us_);
    probe_done_ = false;
    probe_ = 0;
  }
  if (now_us >= period_end_us_) {
    period_end_us_ = now_us + kPeriodUs;
    shortest_before_us_ = shortest_us_;
    shortest_us_ = UINT64_MAX;
    shared_window_ = kWindowMin;
    ramping_ = true;
  }
  const uint64_t taken_us = std::max(taken_us_, probe_ != 0 ? now_us - probe_us_ : 0);
  floor_ = std::clamp(std::max(application_bytes / kShare, taken_us * kRateMin / 1'000'000),
                      kWindowMin, kWindowMax);
}

void Pace::turned(uint64_t now_us) {
  // What was sent earlier is no probe: when it was sent is not known.
  if (probe_ == 0 && newest_ != 0) {
    probe_ = newest_;
    probe_us_ = now_us;
  }
  newest_ = 0;
}

void Pace::learn(uint64_t taken_us) {
  taken_us_ = taken_us;
  shortest_us_ = std::min(shortest_us_, taken_us);
  if (!shared_) return;
  const uint64_t way_us = std::min(shortest_us_, shortest_before_us_);
  const uint64_t allowed_us = std::max(kWaitUs, way_us / 8);
  const uint64_t waited_us = taken_us - way_us;
  ramping_ = ramping_ && waited_us <= allowed_us / 2;
  if (ramping_) {
    shared_window_ *= 2;
  } else if (waited_us <= allowed_us) {
    shared_window_ += shared_window_ / 8 * (allowed_us - waited_us) / allowed_us;
  } else {
    const uint64_t excess_us = std::min(waited_us - allowed_us, allowed_us);
    shared_window_ -= shared_window_ / 4 * excess_us / allowed_us;
  }
  shared_window_ = std::clamp(shared_window_, kWindowMin, kWindowMax);
}

}  // namespace tidemark
