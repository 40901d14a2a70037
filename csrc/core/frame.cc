#include "core/frame.h"

#include <cassert>

#include "core/block_image.h"

namespace tidemark {
namespace {

struct HeaderImage {
  uint32_t magic;
  uint8_t type;
  uint8_t flags;
  uint16_t reserved;
  uint32_t incarnation;
  uint32_t payload_bytes;
  uint64_t sequence;
  uint64_t offset;
  uint32_t length;
  uint32_t epoch;
  uint32_t payload_crc;
  uint32_t header_crc;
};
static_assert(sizeof(HeaderImage) == kFrameHeaderBytes);
static_assert(offsetof(HeaderImage, type) == 4);
static_assert(offsetof(HeaderImage, flags) == 5);
static_assert(offsetof(HeaderImage, reserved) == 6);
static_assert(offsetof(HeaderImage, incarnation) == 8);
static_assert(offsetof(HeaderImage, payload_bytes) == 12);
static_assert(offsetof(HeaderImage, sequence) == 16);
static_assert(offsetof(HeaderImage, offset) == 24);
static_assert(offsetof(HeaderImage, length) == 32);
static_assert(offsetof(HeaderImage, epoch) == 36);
static_assert(offsetof(HeaderImage, payload_crc) == 40);
static_assert(offsetof(HeaderImage, header_crc) == 44);

struct WrittenImage {
  uint64_t first;
  uint32_t count;
  int32_t error;
};
static_assert(sizeof(WrittenImage) == kWrittenRangeBytes);
static_assert(offsetof(WrittenImage, count) == 8);
static_assert(offsetof(WrittenImage, error) == 12);

constexpr uint8_t kKnownFlags =
    kFrameFua | kFrameResync | kFrameLast | kFrameHard | kFrameAckReceived | kFrameAckWritten;

bool is_known(FrameType type) {
  switch (type) {
    case FrameType::kHandshake:
    case FrameType::kControl:
    case FrameType::kData:
    case FrameType::kZeroes:
    case FrameType::kDiscard:
    case FrameType::kBarrier:
    case FrameType::kWritten:
    case FrameType::kEpochDone:
    case FrameType::kMap:
    case FrameType::kSyncDone:
    case FrameType::kSyncDoneAck:
    case FrameType::kPing:
    case FrameType::kOutdate:
    case FrameType::kOutdateAck:
    case FrameType::kRole:
    case FrameType::kDisk:
    case FrameType::kDetach:
    case FrameType::kDetachAck:
    case FrameType::kRead:
    case FrameType::kReadReply:
    case FrameType::kReadFailed:
      return true;
  }
  return false;
}

// Lengths that no sender of ours makes. A bound here keeps a damaged or hostile header from
// steering a buffer or a write; whether the range lies within the volume is for the volume to say.
bool lengths_fit(const FrameHeader& header) {
  if (header.payload_bytes > kFramePayloadMax) return false;
  switch (header.type) {
    case FrameType::kData:
    case FrameType::kReadReply:
      if (header.payload_bytes != header.length) return false;
      break;
    case FrameType::kRead:
    case FrameType::kReadFailed:
      if (header.payload_bytes != 0 || header.length > kFramePayloadMax) return false;
      break;
    case FrameType::kZeroes:
    case FrameType::kDiscard:
      if (header.payload_bytes != 0 || header.length > kZeroLengthMax) return false;
      break;
    default:
      return true;
  }
  return header.length != 0 && header.length % kSectorSize == 0 &&
         header.offset % kSectorSize == 0 && header.offset <= UINT64_MAX - header.length;
}

}  // namespace

void encode_frame_header(const FrameHeader& header, std::span<uint8_t, kFrameHeaderBytes> out) {
  assert(is_known(header.type) && lengths_fit(header));
  assert((header.flags & ~kKnownFlags) == 0);
  assert(header.payload_bytes != 0 || header.payload_crc == 0);
  HeaderImage image{};
  image.magic = kFrameMagic;
  image.type = static_cast<uint8_t>(header.type);
  image.flags = header.flags;
  image.incarnation = header.incarnation;
  image.payload_bytes = header.payload_bytes;
  image.sequence = header.sequence;
  image.offset = header.offset;
  image.length = header.length;
  image.epoch = header.epoch;
  image.payload_crc = header.payload_crc;
  image.header_crc = crc32c(0, &image, offsetof(HeaderImage, header_crc));
  store_image(image, out.data());
}

FrameError parse_frame_header(std::span<const uint8_t, kFrameHeaderBytes> bytes, FrameHeader* out) {
  const auto image = load_image<HeaderImage>(bytes.data());
  if (image.magic != kFrameMagic) return FrameError::kMagic;
  if (image.header_crc != crc32c(0, bytes.data(), offsetof(HeaderImage, header_crc))) {
    return FrameError::kHeaderCrc;
  }
  FrameHeader header;
  header.type = static_cast<FrameType>(image.type);
  header.flags = image.flags;
  header.incarnation = image.incarnation;
  header.payload_bytes = image.payload_bytes;
  header.sequence = image.sequence;
  header.offset = image.offset;
  header.length = image.length;
  header.epoch = image.epoch;
  header.payload_crc = image.payload_crc;
  if (!is_known(header.type)) return FrameError::kType;
  if (image.reserved != 0 || (header.flags & ~kKnownFlags) != 0) return FrameError::kReserved;
  if (!lengths_fit(header)) return FrameError::kLength;
  if (header.payload_bytes == 0 && header.payload_crc != 0) return FrameError::kReserved;
  *out = header;
  return FrameError::kNone;
}

uint32_t frame_payload_crc(std::span<const uint8_t> payload) {
  return payload.empty() ? 0 : crc32c(0, payload.data(), payload.size());
}

const char* frame_error_text(FrameError error) {
  switch (error) {
    case FrameError::kNone:
      return "no error";
    case FrameError::kMagic:
      return "a frame does not begin with the magic \"TMF1\"";
    case FrameError::kHeaderCrc:
      return "a frame header does not match its checksum";
    case FrameError::kType:
      return "a frame has a type that this version does not know";
    case FrameError::kLength:
      return "a frame has a length that cannot be right";
    case FrameError::kReserved:
      return "a frame uses flags or fields that this version does not know";
  }
  return "unknown frame error";
}

const char* frame_type_text(FrameType type) {
  switch (type) {
    case FrameType::kHandshake:
      return "handshake";
    case FrameType::kControl:
      return "control";
    case FrameType::kData:
      return "data";
    case FrameType::kZeroes:
      return "zeroes";
    case FrameType::kDiscard:
      return "discard";
    case FrameType::kBarrier:
      return "barrier";
    case FrameType::kWritten:
      return "written";
    case FrameType::kEpochDone:
      return "epoch-done";
    case FrameType::kMap:
      return "map";
    case FrameType::kSyncDone:
      return "sync-done";
    case FrameType::kSyncDoneAck:
      return "sync-done-ack";
    case FrameType::kPing:
      return "ping";
    case FrameType::kOutdate:
      return "outdate";
    case FrameType::kOutdateAck:
      return "outdate-ack";
    case FrameType::kRole:
      return "role";
    case FrameType::kDisk:
      return "disk";
    case FrameType::kDetach:
      return "detach";
    case FrameType::kDetachAck:
      return "detach-ack";
    case FrameType::kRead:
      return "read";
    case FrameType::kReadReply:
      return "read-reply";
    case FrameType::kReadFailed:
      return "read-failed";
  }
  return "unknown";
}

void encode_written(std::span<const WrittenRange> ranges, uint8_t* out) {
  for (const WrittenRange& range : ranges) {
    assert(range.count != 0);
    store_image(WrittenImage{range.first, range.count, range.error}, out);
    out += kWrittenRangeBytes;
  }
}

bool parse_written(std::span<const uint8_t> payload, std::vector<WrittenRange>* out) {
  out->clear();
  if (payload.empty() || payload.size() % kWrittenRangeBytes != 0) return false;
  out->reserve(payload.size() / kWrittenRangeBytes);
  for (size_t at = 0; at < payload.size(); at += kWrittenRangeBytes) {
    const auto image = load_image<WrittenImage>(payload.data() + at);
    if (image.count == 0 || image.first > UINT64_MAX - image.count) {
      out->clear();
      return false;
    }
    out->push_back({image.first, image.count, image.error});
  }
  return true;
}

}  // namespace tidemark
