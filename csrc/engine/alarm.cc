#include "engine/alarm.h"

#include <algorithm>

#include "engine/engine.h"

namespace tidemark {

Alarm::Alarm(Ring& ring) : ring_(ring) {
  timeout_.alarm = this;
  timeout_.done = [](Completion* self, int32_t, uint32_t) {
    static_cast<Timeout*>(self)->alarm->armed_us_ = 0;
  };
}

void Alarm::set(uint64_t deadline_us) {
  if (deadline_us == UINT64_MAX || (armed_us_ != 0 && armed_us_ <= deadline_us)) return;
  // From now on, and not at a time of the clock: to the kernel that is its own, which in a time
  // namespace is another. It reads this when the entry is submitted; one that had to stay in the
  // queue finds an earlier time there.
  const uint64_t now_us = monotonic_us();
  time_ = timespec_of(deadline_us > now_us ? deadline_us - now_us : 0);
  const auto time = reinterpret_cast<uint64_t>(&time_);
  if (armed_us_ == 0) {
    io_uring_sqe* sqe = ring_.sqe(&timeout_);
    sqe->opcode = IORING_OP_TIMEOUT;
    sqe->addr = time;
    sqe->len = 1;
  } else {
    // One that has just gone off is not found, and its completion ends the sleep.
    io_uring_sqe* sqe = removal();
    sqe->addr2 = time;
    sqe->timeout_flags = IORING_TIMEOUT_UPDATE;
  }
  armed_us_ = std::max<uint64_t>(deadline_us, 1);
}

void Alarm::cancel() {
  if (armed_us_ != 0) removal();
}

io_uring_sqe* Alarm::removal() {
  io_uring_sqe* sqe = ring_.sqe(nullptr);
  sqe->opcode = IORING_OP_TIMEOUT_REMOVE;
  sqe->addr = reinterpret_cast<uint64_t>(static_cast<Completion*>(&timeout_));
  return sqe;
}

}  // namespace tidemark
