#include "memory_ring.h"

namespace tidemark {

std::deque<fuzz::Submission>& fuzz::submissions() {
  static std::deque<Submission> queue;
  return queue;
}

Ring::~Ring() = default;

io_uring_sqe* Ring::sqe(Completion* completion) {
  fuzz::Submission& submission = fuzz::submissions().emplace_back();
  submission.completion = completion;
  return &submission.entry;
}

}  // namespace tidemark
