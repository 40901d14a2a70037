// Frames: headers (with their checksum made right, or not), lists of written ranges, and the
// handshake's frames out of a stream that is cut anywhere.
#include <array>
#include <string>
#include <vector>

#include "addon/handshake.h"
#include "core/check.h"
#include "core/crc32c.h"
#include "core/frame.h"
#include "input.h"

namespace tidemark::fuzz {
namespace {

using HeaderBytes = std::array<uint8_t, kFrameHeaderBytes>;

void seal(std::span<uint8_t, kFrameHeaderBytes> bytes) {
  std::memcpy(bytes.data(), &kFrameMagic, sizeof kFrameMagic);
  const uint32_t crc = crc32c(0, bytes.data(), 44);
  std::memcpy(bytes.data() + 44, &crc, sizeof crc);
}

// What the parser takes, the encoder gives back byte by byte.
void header(Input input, bool sealed) {
  HeaderBytes bytes{};
  const std::span<const uint8_t> from = input.take(bytes.size());
  std::copy(from.begin(), from.end(), bytes.begin());
  if (sealed) seal(bytes);
  FrameHeader parsed;
  const FrameError error = parse_frame_header(bytes, &parsed);
  check(frame_error_text(error) != nullptr, "an error without words");
  if (error != FrameError::kNone) return;
  check(parsed.payload_bytes <= kFramePayloadMax, "a payload beyond the bound was taken");
  check(std::string(frame_type_text(parsed.type)) != "unknown", "an unknown type was taken");
  HeaderBytes again;
  encode_frame_header(parsed, again);
  check(again == bytes, "a header is not what was parsed of it");
}

void written(Input input) {
  const std::span<const uint8_t> payload = input.rest();
  std::vector<WrittenRange> ranges;
  if (!parse_written(payload, &ranges)) {
    check(ranges.empty(), "ranges of a payload that was refused");
    return;
  }
  std::vector<uint8_t> again(ranges.size() * kWrittenRangeBytes);
  encode_written(ranges, again.data());
  check(std::equal(payload.begin(), payload.end(), again.begin(), again.end()),
        "ranges are not what was parsed of them");
}

// Everything that comes out of a stream: texts, and what ended it.
std::vector<std::string> cut(std::span<const uint8_t> stream, Input pieces) {
  std::vector<std::string> out;
  std::vector<uint8_t> unread;
  while (!stream.empty()) {
    const size_t piece = pieces.empty() ? stream.size() : 1 + pieces.byte();
    const std::span<const uint8_t> bytes = stream.first(std::min(piece, stream.size()));
    stream = stream.subspan(bytes.size());
    unread.insert(unread.end(), bytes.begin(), bytes.end());
    for (;;) {
      // A copy of just the size: reading past the end would be seen.
      const std::vector<uint8_t> exact(unread);
      const addon::HandshakeParse parse = addon::parse_handshake(exact);
      if (!parse.error.empty()) {
        out.push_back("error");
        return out;
      }
      if (!parse.json) break;
      check(parse.bytes > kFrameHeaderBytes && parse.bytes <= unread.size(),
            "a handshake frame of more bytes than there are");
      check(!parse.json->empty() && parse.json->size() <= addon::kHandshakeBytesMax,
            "a handshake text beyond its bounds");
      out.emplace_back(*parse.json);
      unread.erase(unread.begin(), unread.begin() + static_cast<ptrdiff_t>(parse.bytes));
      if (unread.empty()) break;
    }
  }
  return out;
}

// Frames as the input says, some of them spoilt.
void stream(Input input) {
  std::vector<uint8_t> bytes;
  Input pieces(input.take(input.byte()));
  while (!input.empty()) {
    const uint8_t kind = input.byte();
    const std::span<const uint8_t> text = input.take(input.byte());
    if (kind < 16 || text.empty()) {
      bytes.insert(bytes.end(), text.begin(), text.end());
      continue;
    }
    std::vector<uint8_t> frame = addon::encode_handshake(
        std::string_view(reinterpret_cast<const char*>(text.data()), text.size()));
    if (kind < 64) {
      patch(&input, std::span(frame).first(kFrameHeaderBytes));
      if (kind < 48) seal(std::span<uint8_t, kFrameHeaderBytes>(frame.data(), kFrameHeaderBytes));
    }
    bytes.insert(bytes.end(), frame.begin(), frame.end());
  }
  check(cut(bytes, pieces) == cut(bytes, Input({})),
        "the same bytes in other pieces are another stream");
}

}  // namespace
}  // namespace tidemark::fuzz

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tidemark::fuzz;
  Input input({data, size});
  switch (input.byte() % 4) {
    case 0:
      header(input, false);
      break;
    case 1:
      header(input, true);
      break;
    case 2:
      written(input);
      break;
    default:
      stream(input);
      break;
  }
  return 0;
}
