// One timeout that stays in the ring while its owner sleeps and wakes: armed anew only for an
// earlier time, or after it has gone off. A timeout with each sleep costs the kernel a timer that
// is set and taken back.
#pragma once

#include <cstdint>

#include "engine/ring.h"

namespace tidemark {

class Alarm {
 public:
  explicit Alarm(Ring& ring);
  Alarm(const Alarm&) = delete;
  Alarm& operator=(const Alarm&) = delete;

  // A sleep in the ring that begins now ends not later than at `deadline_us` of monotonic_us()
  // (UINT64_MAX: this one does not end it). It may end earlier, by an alarm set before.
  void set(uint64_t deadline_us);
  // It leaves the ring, as a completion that means nothing. Not to be set again before that.
  void cancel();

 private:
  struct Timeout : Completion {
    Alarm* alarm = nullptr;
  };

  io_uring_sqe* removal();

  Ring& ring_;
  Timeout timeout_;
  uint64_t armed_us_ = 0;  // 0: it is not in the ring
  __kernel_timespec time_ = {};
};

}  // namespace tidemark
