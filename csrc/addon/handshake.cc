#include "addon/handshake.h"

#include <algorithm>
#include <cassert>
#include <cstdio>
#include <cstring>

#include "core/frame.h"

namespace tidemark::addon {
namespace {

constexpr uint8_t kMagicBytes[4] = {'T', 'M', 'F', '1'};

HandshakeParse wrong(std::string what) { return {std::move(what), std::nullopt, 0}; }

std::string hex32(uint32_t value) {
  char text[9];
  std::snprintf(text, sizeof text, "%08x", value);
  return text;
}

std::string unexpected(const char* field, uint64_t found) {
  return std::string("a handshake frame's ") + field + " is " + std::to_string(found) +
         ", expected 0";
}

// Length of the sequence that starts at `text`, or 0 when it is not well-formed (RFC 3629).
size_t sequence_length(std::span<const uint8_t> text) {
  const uint8_t lead = text[0];
  if (lead < 0x80) return 1;
  const size_t length = lead < 0xc2 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : lead < 0xf5 ? 4 : 0;
  if (length == 0 || text.size() < length) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((text[i] & 0xc0) != 0x80) return 0;
  }
  const uint8_t second = text[1];
  const bool overlong = (lead == 0xe0 && second < 0xa0) || (lead == 0xf0 && second < 0x90);
  const bool surrogate = lead == 0xed && second >= 0xa0;
  const bool beyond = lead == 0xf4 && second >= 0x90;
  return overlong || surrogate || beyond ? 0 : length;
}

bool well_formed_utf8(std::span<const uint8_t> text) {
  while (!text.empty()) {
    const size_t length = sequence_length(text);
    if (length == 0) return false;
    text = text.subspan(length);
  }
  return true;
}

// What a handshake's header must be beyond what every header must.
std::string check_header(const FrameHeader& header) {
  if (header.type != FrameType::kHandshake) {
    return std::string("a frame of type '") + frame_type_text(header.type) +
           "' came where a handshake was expected";
  }
  if (header.flags != 0) return unexpected("flags", header.flags);
  if (header.incarnation != 0) return unexpected("incarnation", header.incarnation);
  if (header.sequence != 0) return unexpected("sequence", header.sequence);
  if (header.offset != 0) return unexpected("offset", header.offset);
  if (header.length != 0) return unexpected("length", header.length);
  if (header.epoch != 0) return unexpected("epoch", header.epoch);
  if (header.payload_bytes == 0 || header.payload_bytes > kHandshakeBytesMax) {
    return "a handshake frame's payload has " + std::to_string(header.payload_bytes) +
           " bytes, expected 1 to " + std::to_string(kHandshakeBytesMax);
  }
  return {};
}

}  // namespace

std::vector<uint8_t> encode_handshake(std::string_view json) {
  assert(!json.empty() && json.size() <= kHandshakeBytesMax);
  const auto* text = reinterpret_cast<const uint8_t*>(json.data());
  FrameHeader header;
  header.type = FrameType::kHandshake;
  header.payload_bytes = static_cast<uint32_t>(json.size());
  header.payload_crc = frame_payload_crc({text, json.size()});
  std::vector<uint8_t> frame(kFrameHeaderBytes + json.size());
  encode_frame_header(header,
                      std::span<uint8_t, kFrameHeaderBytes>(frame.data(), kFrameHeaderBytes));
  std::memcpy(frame.data() + kFrameHeaderBytes, text, json.size());
  return frame;
}

HandshakeParse parse_handshake(std::span<const uint8_t> bytes) {
  const size_t magic_bytes = std::min(bytes.size(), sizeof kMagicBytes);
  if (!std::equal(kMagicBytes, kMagicBytes + magic_bytes, bytes.begin())) {
    return wrong("these are not frames of Tidemark: expected the magic 'TMF1' at the start");
  }
  if (bytes.size() < kFrameHeaderBytes) return {};
  FrameHeader header;
  const FrameError error = parse_frame_header(bytes.first<kFrameHeaderBytes>(), &header);
  if (error != FrameError::kNone) {
    return wrong(std::string("bad frame header: ") + frame_error_text(error));
  }
  if (std::string what = check_header(header); !what.empty()) return wrong(std::move(what));
  const size_t whole = kFrameHeaderBytes + header.payload_bytes;
  if (bytes.size() < whole) return {};
  const std::span<const uint8_t> payload = bytes.subspan(kFrameHeaderBytes, header.payload_bytes);
  const uint32_t crc = frame_payload_crc(payload);
  if (crc != header.payload_crc) {
    return wrong("a handshake's payload has CRC32C " + hex32(crc) + ", its header says " +
                 hex32(header.payload_crc));
  }
  if (!well_formed_utf8(payload)) return wrong("a handshake's payload is not UTF-8");
  return {
      {}, std::string_view(reinterpret_cast<const char*>(payload.data()), payload.size()), whole};
}

}  // namespace tidemark::addon
