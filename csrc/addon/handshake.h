// Handshake frames: the same header as the core's, a JSON text as payload, and nothing else set.
// They come from a peer that has proved nothing yet, so that the bounds are tighter than the
// core's.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace tidemark::addon {

inline constexpr uint32_t kHandshakeBytesMax = 64u << 10;  // of the JSON text

// `json`: 1 to kHandshakeBytesMax bytes.
std::vector<uint8_t> encode_handshake(std::string_view json);

struct HandshakeParse {
  std::string error;                     // names what is wrong; empty: nothing is
  std::optional<std::string_view> json;  // into the bytes; nothing: not all of the frame is there
  size_t bytes = 0;                      // of the whole frame
};
// Says that something is wrong as soon as the bytes so far show it.
HandshakeParse parse_handshake(std::span<const uint8_t> bytes);

}  // namespace tidemark::addon
