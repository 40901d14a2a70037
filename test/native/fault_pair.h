// A pair whose disks fail under a policy of on-io-error.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cerrno>
#include <string>

#include "pair.h"

namespace tidemark::test {

inline bool is_data(const Io& io) { return io.target == IoTarget::kData; }
inline bool is_data_read(const Io& io) { return is_data(io) && io.kind == IoKind::kRead; }

struct FaultPair : Pair {
  explicit FaultPair(OnIoError policy, Protocol protocol_in = Protocol::kC, bool apart = false,
                     uint64_t seed = test_seed())
      : Pair(seed, protocol_in, apart) {
    limit([policy](Limits& limits) { limits.on_io_error = policy; });
  }
  Request* read(Node& node, uint64_t offset, uint64_t length) {
    return write(node, offset, length, 0xee, 0, Op::kRead);
  }
  static bool holds_only(const Request* request, uint8_t fill) {
    return std::all_of(request->buffer, request->buffer + request->length,
                       [&](uint8_t byte) { return byte == fill; });
  }
  DiskState disk(Node& node) { return node.volume().status().disk; }
  // From now on nothing works on this disk.
  static void dies(Node& node) {
    node.fail = [](const Io&) { return -EIO; };
  }
  // a's disk dies and is let go of.
  void detach() {
    dies(a);
    Request* request = read(a, 0, 4096);
    REQUIRE(wait(request));
    REQUIRE(request->result == 0);
    REQUIRE(disk(a) == DiskState::kDiskless);
  }
  uint8_t byte_at(Node& node, uint64_t offset) { return node.data()[offset]; }
};

}  // namespace tidemark::test
