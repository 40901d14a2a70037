// Words that every part shares: operations, request flags, states. Numbers here are part of frames
// and metadata only where a codec says so; everywhere else they are private to one build.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tidemark {

inline constexpr uint32_t kBlockSize = 4096;  // metadata block, bytes
inline constexpr uint32_t kSectorSize = 512;  // smallest unit a volume's size is counted in, bytes
inline constexpr uint32_t kMaxPeerSlots = 8;  // dirty maps in the metadata
inline constexpr uint32_t kNoSlot = 0xffffffffu;  // "bound to no slot"
inline constexpr uint32_t kChunkBytesMin = 4096;
inline constexpr uint32_t kChunkBytesMax = 64u << 20;
inline constexpr uint32_t kChunkBytesDefault = 4096;
inline constexpr uint32_t kExtentBytesDefault = 4u << 20;
inline constexpr uint32_t kExtentsDefault = 1237;  // hot extents an activity log holds
inline constexpr uint32_t kExtentsMin = 7;
inline constexpr uint32_t kExtentsMax = 65534;

enum class Op : uint8_t { kRead = 0, kWrite = 1, kFlush = 2, kDiscard = 3, kWriteZeroes = 4 };

// Flags of a request.
inline constexpr uint8_t kRequestFua = 1;      // durable before it completes
inline constexpr uint8_t kRequestNoUnmap = 2;  // write-zeroes must not punch a hole

enum class Role : uint8_t { kSecondary = 0, kPrimary = 1 };

// DRBD's words. kConsistent is "whole, but whether it is the newest is not known yet".
enum class DiskState : uint8_t {
  kDiskless = 0,
  kFailed = 1,
  kInconsistent = 2,
  kOutdated = 3,
  kConsistent = 4,
  kUpToDate = 5,
};

// A half-open range of bytes of the volume.
struct ByteRange {
  uint64_t offset = 0;
  uint64_t length = 0;
  constexpr uint64_t end() const { return offset + length; }
  constexpr bool overlaps(const ByteRange& other) const {
    return offset < other.end() && other.offset < end();
  }
};

// A node's identity or a random generation's wide sibling: 16 bytes, all zero means "none".
struct Uuid {
  uint8_t bytes[16] = {};
  bool is_zero() const {
    for (uint8_t b : bytes) {
      if (b != 0) return false;
    }
    return true;
  }
  friend bool operator==(const Uuid& a, const Uuid& b) {
    for (size_t i = 0; i < sizeof a.bytes; ++i) {
      if (a.bytes[i] != b.bytes[i]) return false;
    }
    return true;
  }
};

}  // namespace tidemark
