// Two nodes of a small volume that are connected, for tests of what goes wrong.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <functional>
#include <span>
#include <vector>

#include "core/frame.h"
#include "frame_bytes.h"
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
  // Stops the node, or makes it a secondary. What came of that.
  int end(Node& node, bool stops) {
    int error = 1;
    REQUIRE(finish(
        [&](Done done) {
          if (stops) {
            node.volume().stop(done);
          } else {
            node.volume().demote(done);
          }
        },
        &error));
    return error;
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
  bool told(Node& node, EventKind kind, const std::string& text) {
    return std::any_of(node.events.begin(), node.events.end(), [&](const Event& event) {
      return event.kind == kind && event.text.find(text) != std::string::npos;
    });
  }
  // A link with a third node, which is whoever writes into `wire_in`.
  void link_stranger(Node& node) {
    REQUIRE(run([&] { return node.volume().handshake_state(stranger).idle; }));
    int error = 1;
    node.volume().link_prepare(stranger_params(node),
                               [&](int result, const std::string&) { error = result; });
    REQUIRE(run([&] { return error <= 0; }));
    REQUIRE(error == 0);
    node.clear_wires();
    REQUIRE(node.volume().link_start());
  }
  // A third node's slot, that is tracked from now on.
  void bind_stranger(Node& node) {
    link_stranger(node);
    node.volume().link_stop("a stranger was here");
    REQUIRE(run([&] { return node.volume().handshake_state(stranger).idle; }));
  }
  void say(Node& node, const FrameHeader& header, std::span<const uint8_t> payload = {}) {
    const std::vector<uint8_t> bytes = frame_bytes(header, 7, payload);
    node.wire_in.insert(node.wire_in.end(), bytes.begin(), bytes.end());
  }
  Uuid stranger;
  Protocol protocol;
};

// The part of lib/replication/generations.ts that two copies of one volume can get to.
struct Agreed {
  bool possible = true;
  Node* source = nullptr;
  bool full = false;
};

inline Agreed decide(Pair& pair) {
  const HandshakeState a = pair.state(pair.a);
  const HandshakeState b = pair.state(pair.b);
  const auto is_in = [](uint64_t generation, const HandshakeState& state) {
    return std::count(state.history.begin(), state.history.end(), generation) != 0;
  };
  const bool a_whole = a.disk != DiskState::kInconsistent;
  const bool b_whole = b.disk != DiskState::kInconsistent;
  if (!a_whole && !b_whole) return {.possible = false};
  if (a_whole != b_whole) {
    const HandshakeState& source = a_whole ? a : b;
    const HandshakeState& target = a_whole ? b : a;
    const bool by_map = target.current == source.bitmap || target.current == source.current;
    return {true, a_whole ? &pair.a : &pair.b, !by_map};
  }
  if (a.current == b.current) {
    if ((a.bitmap == 0) != (b.bitmap == 0)) return {true, a.bitmap != 0 ? &pair.a : &pair.b, false};
    const bool a_crashed = (a.flags & kNodeCrashedPrimary) != 0;
    const bool b_crashed = (b.flags & kNodeCrashedPrimary) != 0;
    if ((a_crashed || b_crashed) && a.role != b.role)
      return {true, a.role == Role::kPrimary ? &pair.a : &pair.b, false};
    if (a_crashed || b_crashed) return {true, a_crashed ? &pair.a : &pair.b, false};
    if (a.dirty_chunks == 0 && b.dirty_chunks == 0) return {};
    if (a.role != b.role) return {true, a.role == Role::kPrimary ? &pair.a : &pair.b, false};
    const bool b_last = (a.slot_flags & kSlotPeerPrimary) != 0;
    const bool a_last = (b.slot_flags & kSlotPeerPrimary) != 0;
    if (a_last == b_last) return {.possible = false};
    return {true, a_last ? &pair.a : &pair.b, false};
  }
  const bool a_behind = a.current == b.bitmap;
  const bool b_behind = b.current == a.bitmap;
  if (a_behind != b_behind) return {true, a_behind ? &pair.b : &pair.a, false};
  const bool a_past = is_in(a.current, b);
  const bool b_past = is_in(b.current, a);
  if (a_past == b_past) return {.possible = false};
  const bool served = ((a_past ? a : b).slot_flags & kSlotServed) != 0;
  return {true, a_past ? &pair.b : &pair.a, !served || a.bitmap == 0 || a.bitmap != b.bitmap};
}

}  // namespace tidemark::test
