// Replication frames: 48-byte little-endian header, then `payload_bytes` of payload.
// docs/PROTOCOL.md has the bytes.
//
//  0 u32 magic "TMF1"
//  4 u8  type
//  5 u8  flags
//  6 u16 reserved, 0
//  8 u32 incarnation      R16: low half of the link's random number; 0 before the handshake made it
// 12 u32 payload_bytes    <= kFramePayloadMax
// 16 u64 sequence
// 24 u64 offset
// 32 u32 length           bytes of the volume, a multiple of 512 unless the type says otherwise
// 36 u32 epoch
// 40 u32 payload CRC32C   0 when empty
// 44 u32 header CRC32C    over bytes 0..43
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/dirty_map.h"
#include "core/types.h"

namespace tidemark {

inline constexpr uint32_t kFrameMagic = 0x31464d54;  // "TMF1" in memory order
inline constexpr uint32_t kFrameHeaderBytes = 48;
inline constexpr uint32_t kFramePayloadMax = 1u << 20;
inline constexpr uint32_t kZeroLengthMax = 1u << 30;  // volume bytes of one kZeroes or kDiscard

enum class FrameType : uint8_t {
  // The shell's (lib/replication): payload is UTF-8 JSON; the core hands kControl through in order.
  kHandshake = 1,
  kControl = 2,
  // The core's.
  // Write: payload = length bytes.
  kData = 16,
  // Zero range, no payload; length up to kZeroLengthMax.
  kZeroes = 17,
  // Discard a range that reads back as zeroes afterwards (R6); no payload.
  kDiscard = 18,
  // Closes `epoch`; sequence = number of the last write in it; offset = how many writes it has.
  kBarrier = 19,
  // Acknowledgement of writes (B: received; C: on disk, not yet durable): payload = WrittenRanges.
  kWritten = 20,
  // Acknowledgement: all epochs up to and including `epoch` are durable there (R10).
  kEpochDone = 21,
  // Dirty map: payload = codes of run_length.h; offset = first chunk; kFrameLast on the last.
  kMap = 22,
  // Source: nothing is left; offset = generation to take over; sequence = of the last write before.
  kSyncDone = 23,
  // Target: durable; offset = the generation taken over.
  kSyncDoneAck = 24,
  // Keepalive, any time.
  kPing = 25,
  // Primary to peer before an orderly disconnect: you are going to be outdated (R18).
  kOutdate = 26,
  kOutdateAck = 27,
  // offset = the sender's role from now on (0 secondary, 1 primary).
  kRole = 28,
  // The sender's disk failed; offset = 0 diskless, 1 failed. The receiver ends the link, unless the
  // sender is primary.
  kDisk = 29,
  // Primary, behind a hard barrier: I let go of my disk; keep what it lacks (R7). offset = the
  // generation that your copy is to take.
  kDetach = 30,
  // It is durable; offset = that generation.
  kDetachAck = 31,
  // Diskless primary: sequence = a number of its own; offset, length: at most kFramePayloadMax.
  kRead = 32,
  // Sequence, offset and length of the read; payload = length bytes.
  kReadReply = 33,
  // Sequence, offset and length of the read; epoch = errno.
  kReadFailed = 34,
};

// Flags.
inline constexpr uint8_t kFrameFua = 1;           // kData..kDiscard: part of a FUA request
inline constexpr uint8_t kFrameResync = 2;        // kData, kZeroes: resync, not application
inline constexpr uint8_t kFrameLast = 4;          // kMap: the last one
inline constexpr uint8_t kFrameHard = 8;          // kBarrier: an ordering barrier (R10)
inline constexpr uint8_t kFrameAckReceived = 16;  // kData..kDiscard: protocol B
inline constexpr uint8_t kFrameAckWritten = 32;   // kData..kDiscard: protocol C, resync

struct FrameHeader {
  FrameType type{};
  uint8_t flags = 0;
  uint32_t incarnation = 0;
  uint32_t payload_bytes = 0;
  uint64_t sequence = 0;
  uint64_t offset = 0;
  uint32_t length = 0;
  uint32_t epoch = 0;
  uint32_t payload_crc = 0;
};

void encode_frame_header(const FrameHeader& header, std::span<uint8_t, kFrameHeaderBytes> out);

enum class FrameError : uint8_t { kNone = 0, kMagic, kHeaderCrc, kType, kLength, kReserved };
// Checks magic, header CRC, known type and flags, payload bound, and for kData..kDiscard that
// length, offset and payload fit each other (whole sectors, not zero, no wrap past 2^64). Says
// nothing about the payload's bytes. `out` is filled only when the answer is kNone.
FrameError parse_frame_header(std::span<const uint8_t, kFrameHeaderBytes> bytes, FrameHeader* out);
// CRC32C of a payload as the header carries it: 0 when empty.
uint32_t frame_payload_crc(std::span<const uint8_t> payload);
const char* frame_error_text(FrameError error);
const char* frame_type_text(FrameType type);

// One entry of a kWritten payload, 16 bytes on the wire.
struct WrittenRange {
  uint64_t first = 0;
  uint32_t count = 0;
  int32_t error = 0;  // 0 or -errno: the write failed there
};
inline constexpr uint32_t kWrittenRangeBytes = 16;
void encode_written(std::span<const WrittenRange> ranges, uint8_t* out);
// False: empty, not a multiple of 16, a count of 0, or a range that wraps around.
bool parse_written(std::span<const uint8_t> payload, std::vector<WrittenRange>* out);

}  // namespace tidemark
