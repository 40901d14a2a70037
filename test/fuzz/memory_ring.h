// The volume's ring without a kernel: what is submitted waits here until the fuzzer completes it.
// Linked in place of csrc/engine/ring.cc.
#pragma once

#include <deque>

#include "engine/ring.h"

namespace tidemark::fuzz {

struct Submission {
  io_uring_sqe entry = {};
  Completion* completion = nullptr;
};

// Of all rings; there is one.
std::deque<Submission>& submissions();

}  // namespace tidemark::fuzz
