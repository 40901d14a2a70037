// The peer of a linked volume, as a fuzzer's input wants it: it knows what an honest peer would say
// by now, and says that, or a lie in any of its fields, with right checksums or wrong ones. Frame
// types are the codec's own list.
#pragma once

#include <algorithm>
#include <array>
#include <bitset>
#include <cstring>
#include <deque>
#include <span>
#include <utility>
#include <vector>

#include "core/crc32c.h"
#include "core/dirty_map.h"
#include "core/frame.h"
#include "frame_types.h"
#include "input.h"
#include "linked_node.h"

namespace tidemark::fuzz {

inline constexpr uint64_t kSectors = kDeviceBytes / kSectorSize;  // the volume has fewer
inline constexpr size_t kReceiveRingBytes = 4u << 20;
inline constexpr uint32_t kRepeatsMax = 6000;
inline constexpr uint64_t kPeerGeneration = 0x9999;

class LyingPeer {
 public:
  using Sectors = std::bitset<kSectors>;

  LyingPeer(Input* input, LinkedNode* node) : input_(input), node_(node) {}

  // A new link.
  void begin(uint32_t incarnation) {
    *this = LyingPeer(input_, node_);
    incarnation_ = incarnation;
  }
  // Said, and not yet received.
  std::vector<uint8_t>& said() { return said_; }
  // Resync of the volume's that was said to be durable, and resync that came from here.
  const Sectors& durable() const { return durable_; }
  const Sectors& received() const { return received_; }

  // What the volume says: an honest peer would answer it.
  void heard(const FrameHeader& header) {
    switch (header.type) {
      case FrameType::kData:
      case FrameType::kZeroes:
      case FrameType::kDiscard:
        writes_.push_back({header.sequence,
                           header.epoch,
                           {header.offset, header.length},
                           (header.flags & kFrameResync) != 0});
        break;
      case FrameType::kBarrier:
        barrier_ = header.epoch;
        break;
      case FrameType::kSyncDone:
        offered_ = header.offset;
        break;
      case FrameType::kDetach:
        detached_ = header.offset;
        break;
      case FrameType::kRead:
        reads_.push_back(header);
        break;
      default:
        break;
    }
  }

  // What the input says next.
  void frame() {
    const std::vector<FrameType>& types = frame_types();
    const FrameType type = types[input_->below(types.size())];
    // A bit for each lie.
    const uint8_t lies = input_->byte();
    const uint8_t kind = input_->byte();
    const uint32_t repeats =
        (lies & 0x80) != 0 ? 1 + static_cast<uint32_t>(input_->below(kRepeatsMax)) : 1;
    const size_t before = said_.size();
    for (uint32_t i = 0; i < repeats && said_.size() < kReceiveRingBytes; ++i) {
      one_frame(type, i == 0 ? lies : lies & 0x3f, kind);
      if (i == 0 && (lies & 0x01) != 0) {
        // The same lie again and again, from here on without its fields.
        const std::vector<uint8_t> lie(said_.begin() + static_cast<ptrdiff_t>(before), said_.end());
        for (++i; i < repeats && said_.size() < kReceiveRingBytes; ++i) {
          said_.insert(said_.end(), lie.begin(), lie.end());
        }
      }
    }
  }

  // What an honest peer would answer by now.
  void answer() {
    std::vector<WrittenRange> ranges;
    for (const SentWrite& write : writes_) ranges.push_back({write.sequence, 1, 0});
    if (!ranges.empty() && ranges.size() <= kFramePayloadMax / kWrittenRangeBytes) {
      std::vector<uint8_t> payload(ranges.size() * kWrittenRangeBytes);
      encode_written(ranges, payload.data());
      say(FrameType::kWritten, 0, 0, payload);
    }
    if (barrier_ != 0) {
      say(FrameType::kEpochDone, barrier_, 0, {});
      std::erase_if(writes_, [&](const SentWrite& write) { return write.epoch <= barrier_; });
      barrier_ = 0;
    }
    if (offered_ != 0) say(FrameType::kSyncDoneAck, 0, std::exchange(offered_, 0), {});
    if (detached_ != 0) say(FrameType::kDetachAck, 0, std::exchange(detached_, 0), {});
    for (size_t left = reads_.size(); left > 0; --left) {
      FrameHeader header = reads_.front();
      header.type = FrameType::kReadReply;
      header.flags = 0;
      put(header, std::vector<uint8_t>(header.length, 0x5a), 0);
    }
  }

 private:
  struct SentWrite {
    uint64_t sequence = 0;
    uint32_t epoch = 0;
    ByteRange range;
    bool resync = false;
  };

  // A field that is what it should be, or is not.
  uint64_t field(uint64_t right, bool wrong) { return wrong ? input_->number() : right; }
  const DirtyMap* map() { return node_->attachment().maps[0].get(); }

  void one_frame(FrameType type, uint8_t lies, uint8_t kind) {
    FrameHeader header;
    header.type = type;
    header.flags = (lies & 0x40) != 0 ? input_->byte() : right_flags(type, kind);
    header.incarnation = incarnation_;
    std::vector<uint8_t> payload;
    const bool is_write =
        type == FrameType::kData || type == FrameType::kZeroes || type == FrameType::kDiscard;
    if (is_write) {
      header.sequence = field(next_sequence_, lies & 0x04);
      header.epoch = static_cast<uint32_t>(field(epoch_, lies & 0x08));
      const uint64_t unit = kind >= 128 ? 4096 : kSectorSize;
      header.length = static_cast<uint32_t>(field((1 + input_->below(16)) * unit, lies & 0x10));
      header.offset = field(input_->below(kVolumeBytes / unit) * unit, lies & 0x02);
      if (type == FrameType::kData) {
        payload.assign(std::min<uint32_t>(header.length, kFramePayloadMax), kind);
      }
    } else {
      header.sequence = field(right_sequence(type), lies & 0x04);
      header.epoch = static_cast<uint32_t>(field(right_epoch(type), lies & 0x08));
      header.length = static_cast<uint32_t>(field(right_length(type, kind), lies & 0x10));
      header.offset = field(right_offset(type, kind), lies & 0x02);
      payload = right_payload(type, kind);
      if ((lies & 0x10) != 0) {
        const std::span<const uint8_t> bytes = input_->take(input_->byte());
        payload.insert(payload.end(), bytes.begin(), bytes.end());
      }
    }
    put(header, payload, lies);
  }

  uint8_t right_flags(FrameType type, uint8_t kind) {
    switch (type) {
      case FrameType::kData:
      case FrameType::kZeroes:
        return (kind & 1) != 0 ? kFrameResync : kFrameAckWritten;
      case FrameType::kBarrier:
        return (kind & 1) != 0 ? kFrameHard : 0;
      case FrameType::kMap:
        return kFrameLast;
      default:
        return 0;
    }
  }
  uint32_t right_epoch(FrameType type) const {
    if (type == FrameType::kEpochDone) return barrier_;
    return type == FrameType::kReadFailed ? 5 : epoch_;
  }
  uint64_t right_sequence(FrameType type) {
    if (type == FrameType::kRead) return ++own_reads_;
    return is_read_answer(type) ? reads_.front().sequence : next_sequence_ - 1;
  }
  uint64_t right_length(FrameType type, uint8_t kind) const {
    if (type == FrameType::kRead) return (1u + kind % 32u) * kSectorSize;
    return is_read_answer(type) ? reads_.front().length : 0;
  }
  uint64_t right_offset(FrameType type, uint8_t kind) {
    if (is_read_answer(type)) return reads_.front().offset;
    switch (type) {
      case FrameType::kBarrier:
        return epoch_writes_;
      case FrameType::kMap:
        return map_next_;
      case FrameType::kSyncDone:
        return kPeerGeneration + kind;
      case FrameType::kSyncDoneAck:
        return offered_;
      case FrameType::kDetach:
        return kPeerGeneration + 1 + kind;
      case FrameType::kDetachAck:
        return detached_;
      case FrameType::kRead:
        return input_->below(kVolumeBytes / kSectorSize) * kSectorSize;
      default:
        return kind % 3;
    }
  }
  bool is_read_answer(FrameType type) const {
    return (type == FrameType::kReadReply || type == FrameType::kReadFailed) && !reads_.empty();
  }
  std::vector<uint8_t> right_payload(FrameType type, uint8_t kind) {
    std::vector<uint8_t> out;
    if (type == FrameType::kMap) {
      // Clean and dirty runs to the end.
      uint64_t left = map() != nullptr ? map()->chunk_count() - map_next_ : 0;
      for (bool first = true; left > 0; first = false) {
        uint64_t run =
            kind < 64 || input_->empty() ? left : std::min<uint64_t>(left, input_->byte());
        if (run == 0 && !first) run = 1;
        left -= run;
        for (; run >= 0x80; run >>= 7) out.push_back(static_cast<uint8_t>(run | 0x80));
        out.push_back(static_cast<uint8_t>(run));
      }
    } else if (type == FrameType::kWritten) {
      std::vector<WrittenRange> ranges;
      const uint64_t first = writes_.empty() ? 1 : writes_.front().sequence;
      for (uint32_t i = 0; i <= kind % 4u; ++i) {
        const uint64_t from = kind < 128 ? first + input_->below(16) : input_->number();
        ranges.push_back(
            {from, 1 + static_cast<uint32_t>(input_->below(4)), kind % 16 == 15 ? -5 : 0});
      }
      out.resize(ranges.size() * kWrittenRangeBytes);
      encode_written(ranges, out.data());
    } else if (type == FrameType::kReadReply && !reads_.empty()) {
      out.assign(std::min<uint32_t>(reads_.front().length, kFramePayloadMax), kind);
    } else if (type == FrameType::kControl || type == FrameType::kHandshake) {
      out.assign(1 + kind * 8u, 'x');
    }
    return out;
  }

  // Encodes what the encoder would refuse, too.
  void put(FrameHeader header, std::vector<uint8_t> payload, uint8_t lies) {
    if (payload.size() > kFramePayloadMax) payload.resize(kFramePayloadMax);
    const uint8_t spoilt = (lies & 0x20) != 0 ? input_->byte() : 0xff;
    if (spoilt == 0) header.incarnation ^= 1;
    struct {
      uint32_t magic = kFrameMagic;
      uint8_t type;
      uint8_t flags;
      uint16_t reserved = 0;
      uint32_t incarnation, payload_bytes;
      uint64_t sequence, offset;
      uint32_t length, epoch, payload_crc, crc;
    } image;
    static_assert(sizeof image == kFrameHeaderBytes);
    image.type = static_cast<uint8_t>(header.type);
    image.flags = header.flags;
    image.incarnation = header.incarnation;
    image.payload_bytes = static_cast<uint32_t>(payload.size());
    image.sequence = header.sequence;
    image.offset = header.offset;
    image.length = header.length;
    image.epoch = header.epoch;
    image.payload_crc = frame_payload_crc(payload) ^ (spoilt == 1 ? 1 : 0);
    std::array<uint8_t, kFrameHeaderBytes> bytes;
    std::memcpy(bytes.data(), &image, sizeof image);
    const uint32_t crc = crc32c(0, bytes.data(), 44) ^ (spoilt == 2 ? 1 : 0);
    std::memcpy(bytes.data() + 44, &crc, sizeof crc);
    said_.insert(said_.end(), bytes.begin(), bytes.end());
    said_.insert(said_.end(), payload.begin(), payload.end());
    follow(header, payload.size());
  }

  // What comes next if this was taken.
  void follow(const FrameHeader& header, size_t payload_bytes) {
    switch (header.type) {
      case FrameType::kData:
      case FrameType::kZeroes:
      case FrameType::kDiscard: {
        ++next_sequence_;
        ++epoch_writes_;
        const bool fits = header.offset % kSectorSize == 0 && header.offset < node_->size() &&
                          header.length <= node_->size() - header.offset &&
                          (header.type != FrameType::kData || payload_bytes == header.length);
        if (!fits || (header.flags & kFrameResync) == 0) break;
        for (uint64_t at = 0; at < header.length / kSectorSize; ++at) {
          received_.set(header.offset / kSectorSize + at);
        }
        break;
      }
      case FrameType::kBarrier:
        ++epoch_;
        epoch_writes_ = 0;
        break;
      case FrameType::kEpochDone:
        // The volume has closed it: everything in it is durable, says the peer.
        for (const SentWrite& write : writes_) {
          if (!write.resync || write.epoch > header.epoch) continue;
          for (uint64_t at = 0; at < write.range.length / kSectorSize; ++at) {
            durable_.set(write.range.offset / kSectorSize + at);
          }
        }
        break;
      case FrameType::kReadReply:
      case FrameType::kReadFailed:
        if (!reads_.empty()) reads_.pop_front();
        break;
      default:
        break;
    }
  }

  void say(FrameType type, uint32_t epoch, uint64_t offset, std::vector<uint8_t> payload) {
    FrameHeader header;
    header.type = type;
    header.incarnation = incarnation_;
    header.epoch = epoch;
    header.offset = offset;
    put(header, std::move(payload), 0);
  }

  Input* input_;
  LinkedNode* node_;
  std::vector<uint8_t> said_;
  uint32_t incarnation_ = 0;
  uint64_t next_sequence_ = 1;
  uint32_t epoch_ = 1;
  uint64_t epoch_writes_ = 0;
  uint64_t map_next_ = 0;
  uint32_t barrier_ = 0;   // the last epoch that the volume closed
  uint64_t offered_ = 0;   // the generation that it offered
  uint64_t detached_ = 0;  // the generation to take when it lets go of its disk
  uint64_t own_reads_ = 0;
  std::deque<FrameHeader> reads_;  // not answered yet
  std::vector<SentWrite> writes_;
  Sectors durable_;
  Sectors received_;
};

}  // namespace tidemark::fuzz
