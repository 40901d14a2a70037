// A frame as it goes over the wire.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/frame.h"

namespace tidemark::test {

// Of one whole payload: its length and checksum are filled in.
inline std::vector<uint8_t> frame_bytes(FrameHeader header, uint32_t incarnation,
                                        std::span<const uint8_t> payload = {}) {
  header.incarnation = incarnation;
  header.payload_bytes = static_cast<uint32_t>(payload.size());
  header.payload_crc = frame_payload_crc(payload);
  std::vector<uint8_t> bytes(kFrameHeaderBytes);
  encode_frame_header(header, std::span<uint8_t, kFrameHeaderBytes>(bytes.data(), bytes.size()));
  bytes.insert(bytes.end(), payload.begin(), payload.end());
  return bytes;
}

}  // namespace tidemark::test
