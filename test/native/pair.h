// Two nodes of a small volume that are connected, for tests of what goes wrong.
#pragma once

#include <doctest/doctest.h>

#include <functional>

#include "core/frame.h"
#include "world.h"

namespace tidemark::test {

inline constexpr uint64_t kMiB = 1u << 20;
inline constexpr uint64_t kDevice = 24 * kMiB + 3 * 512;  // no multiple of a chunk or an extent

inline Geometry small_geometry() {
  Geometry geometry;
  geometry.extent_bytes = 1u << 20;
  geometry.log_extents = 7;
  return geometry;
}

inline bool is_flush(const Io& io) { return io.kind == IoKind::kFlush; }
inline bool is_meta_write(const Io& io) {
  return io.target == IoTarget::kMeta && io.kind == IoKind::kWrite;
}

// Both attached, a is primary, b was filled by a full resync.
struct Pair : World {
  explicit Pair(uint64_t seed, Protocol protocol_in = Protocol::kC, bool apart = false)
      : World(seed, small_geometry(), kDevice, apart), protocol(protocol_in) {
    for (uint8_t& byte : stranger.bytes) byte = static_cast<uint8_t>(random.next());
    a.attach();
    b.attach();
    int error = 1;
    REQUIRE(finish([&](Done done) { a.volume().promote(true, done); }, &error));
    REQUIRE(error == 0);
    REQUIRE(connect(&a, true, protocol));
    REQUIRE(run([&] { return connected(); }));
    REQUIRE(identical());
  }
  HandshakeState state(Node& node) { return node.volume().handshake_state(other(node).id()); }
  Node& other(Node& node) { return &node == &a ? b : a; }
  void limit(const std::function<void(Limits&)>& change) {
    Limits limits;
    change(limits);
    a.volume().set_limits(limits);
    b.volume().set_limits(limits);
  }
  void run_for(uint64_t microseconds) {
    const uint64_t end = now_us + microseconds;
    REQUIRE(run([&] { return now_us >= end; }, microseconds));
  }
  bool idle() {
    return run([&] { return state(a).idle && state(b).idle; });
  }
  LinkParams stranger_params(Node& node) {
    LinkParams params;
    params.serial = node.volume().handshake_state(stranger).serial;
    params.peer_current = node.volume().handshake_state(stranger).current;
    params.peer_id = stranger;
    params.peer_name = "stranger";
    params.peer_disk = DiskState::kUpToDate;
    params.incarnation = 7;
    params.protocol = protocol;
    return params;
  }
  // A link with a third node, which is whoever writes into `wire_in`.
  void link_stranger(Node& node) {
    REQUIRE(run([&] { return node.volume().handshake_state(stranger).idle; }));
    int error = 1;
    node.volume().link_prepare(stranger_params(node),
                               [&](int result, const std::string&) { error = result; });
    REQUIRE(run([&] { return error <= 0; }));
    REQUIRE(error == 0);
    node.wire_in.clear();
    node.wire_out.clear();
    REQUIRE(node.volume().link_start());
  }
  // A third node's slot, that is tracked from now on.
  void bind_stranger(Node& node) {
    link_stranger(node);
    node.volume().link_stop("a stranger was here");
    REQUIRE(run([&] { return node.volume().handshake_state(stranger).idle; }));
  }
  void say(Node& node, FrameHeader header) {
    header.incarnation = 7;
    uint8_t bytes[kFrameHeaderBytes];
    encode_frame_header(header, bytes);
    node.wire_in.insert(node.wire_in.end(), bytes, bytes + kFrameHeaderBytes);
  }
  Uuid stranger;
  Protocol protocol;
};

}  // namespace tidemark::test
