// A node of test/native/world.h whose buffers are counted and bounded, as the engine's are, and
// whose sent frames are read as they are made.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "core/check.h"
#include "core/frame.h"
#include "world.h"

namespace tidemark::fuzz {

inline constexpr uint64_t kVolumeBytes = 1u << 20;
inline constexpr uint64_t kDeviceBytes = kVolumeBytes + (64u << 10);
inline constexpr size_t kArenaBytes = 4u << 20;

inline Geometry linked_geometry(uint32_t chunk_bytes) {
  Geometry geometry;
  geometry.chunk_bytes = chunk_bytes;
  geometry.extent_bytes = kExtentBytesMin;
  geometry.log_extents = kExtentsMin;
  geometry.peer_slots = 2;
  geometry.node_slots = 1;
  return geometry;
}

class LinkedNode : public test::Node {
 public:
  LinkedNode(test::Random& random, uint32_t chunk_bytes)
      : Node("n", random, linked_geometry(chunk_bytes), kDeviceBytes) {}

  uint8_t* buffer_get(size_t bytes) override {
    if (held + bytes > kArenaBytes) return nullptr;
    uint8_t* buffer = Node::buffer_get(bytes);
    if (buffer != nullptr) held += bytes;
    return buffer;
  }
  void buffer_put(uint8_t* buffer, size_t bytes) override {
    check(bytes <= held, "more buffers come back than were given");
    held -= bytes;
    Node::buffer_put(buffer, bytes);
  }
  uint8_t* send_reserve(size_t bytes) override {
    check(bytes <= send_space(), "more is to be sent than there is room for");
    reserved_ = Node::send_reserve(bytes);
    return reserved_;
  }
  void send_commit(size_t bytes) override {
    FrameHeader header;
    check(bytes >= kFrameHeaderBytes &&
              parse_frame_header(
                  std::span<const uint8_t, kFrameHeaderBytes>(reserved_, kFrameHeaderBytes),
                  &header) == FrameError::kNone &&
              bytes == kFrameHeaderBytes + header.payload_bytes,
          "something that is no frame is sent");
    const std::span<const uint8_t> payload(reserved_ + kFrameHeaderBytes, header.payload_bytes);
    check(header.payload_crc == frame_payload_crc(payload), "a frame is sent with a wrong CRC");
    Node::send_commit(bytes);
    if (sent) sent(header);
  }

  size_t held = 0;  // bytes of buffers
  std::function<void(const FrameHeader&)> sent;

 private:
  uint8_t* reserved_ = nullptr;
};

}  // namespace tidemark::fuzz
