// A real volume, linked with a peer that lies: the handshake was done, and then come the frames
// that the input says, with right checksums or wrong ones, in any pieces, while disks and the
// application go on. Frame types are the codec's own list.
//
// What must hold whatever comes: nothing crashes or leaks, memory stays within bounds, every
// request completes exactly once, and no bit is cleared unless what it stands for was copied and
// said to be durable by the one who has to say it (R9, R17).
#include <sanitizer/allocator_interface.h>
#include <sanitizer/common_interface_defs.h>

#include <array>
#include <bitset>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "core/check.h"
#include "core/crc32c.h"
#include "core/frame.h"
#include "frame_types.h"
#include "input.h"
#include "linked_node.h"

namespace tidemark::fuzz {
namespace {

constexpr uint64_t kSectors = kDeviceBytes / kSectorSize;  // the volume has fewer
constexpr size_t kReceiveRingBytes = 4u << 20;
// What one volume of this size and one link may have in memory beside its rings and buffers.
constexpr size_t kMemoryBytesMax = 24u << 20;
constexpr uint32_t kRepeatsMax = 6000;

using Sectors = std::bitset<kSectors>;

struct SentWrite {
  uint64_t sequence = 0;
  uint32_t epoch = 0;
  ByteRange range;
  bool resync = false;
};

class Hostile {
 public:
  explicit Hostile(Input* input)
      : input_(*input), random_(1), node_(random_, kChunkBytesMin << 2 * (input->byte() % 4)) {
    for (uint8_t& byte : peer_id_.bytes) byte = 0x77;
    node_.sent = [this](const FrameHeader& header) { heard(header); };
    node_.attach();
    held_before_ = node_.held;
    const uint8_t kind = input_.byte();
    if ((kind & 1) != 0) node_.wire_bytes = 256u << 10;
    if ((kind & 2) != 0) command([&](Done done) { volume().promote(true, std::move(done)); });
    if ((kind & 4) != 0) write(3 * 4096, 20000, Op::kWrite, 0);
    settle();
    connect(kind >> 3);
    remember();
  }

  void run() {
    while (!input_.empty()) {
      step();
      poll();
      check_state();
    }
    end();
  }

 private:
  Volume& volume() { return node_.volume(); }
  const DirtyMap* map() { return node_.attachment().maps[0].get(); }

  // --- the link ---

  // Whatever the handshake could have agreed on.
  void connect(uint8_t kind) {
    const HandshakeState state = volume().handshake_state(peer_id_);
    LinkParams params;
    params.serial = state.serial;
    params.peer_id = peer_id_;
    params.peer_name = "peer";
    params.incarnation = ++incarnation_;
    params.protocol = (kind & 1) != 0 ? Protocol::kA : Protocol::kC;
    params.side = static_cast<SyncSide>((kind >> 1) % 3);
    params.full = (kind & 8) != 0;
    params.sync_generation = 0x5555;
    params.peer_current = params.side == SyncSide::kNone ? state.current : 0x9999;
    params.peer_bitmap = (kind & 16) != 0 ? state.current : 0;
    params.peer_role = state.role == Role::kPrimary ? Role::kSecondary : Role::kPrimary;
    params.peer_disk = DiskState::kUpToDate;
    wire_in().clear();
    node_.wire_out.clear();
    pending_.clear();
    sent_writes_.clear();
    durable_.reset();
    received_.reset();
    next_sequence_ = 1;
    epoch_ = 1;
    epoch_writes_ = 0;
    map_next_ = 0;
    offered_ = 0;
    barrier_ = 0;
    bool prepared = false;
    volume().link_prepare(params,
                          [&prepared](int error, const std::string&) { prepared = error == 0; });
    settle();
    if (prepared) volume().link_start();
  }
  bool linked() {
    const Connection connection = volume().status().connection;
    return connection != Connection::kStandAlone && connection != Connection::kPrepared;
  }
  std::vector<uint8_t>& wire_in() { return node_.wire_in; }

  // What this node says: an honest peer would answer it.
  void heard(const FrameHeader& header) {
    switch (header.type) {
      case FrameType::kData:
      case FrameType::kZeroes:
      case FrameType::kDiscard:
        sent_writes_.push_back({header.sequence,
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
      default:
        break;
    }
  }

  // --- what the peer says ---

  // A field that is what it should be, or is not.
  uint64_t field(uint64_t right, bool wrong) { return wrong ? input_.number() : right; }

  void frame() {
    const std::vector<FrameType>& types = frame_types();
    const FrameType type = types[input_.below(types.size())];
    // A bit for each lie.
    const uint8_t lies = input_.byte();
    const uint8_t kind = input_.byte();
    const uint32_t repeats =
        (lies & 0x80) != 0 ? 1 + static_cast<uint32_t>(input_.below(kRepeatsMax)) : 1;
    const size_t before = pending_.size();
    for (uint32_t i = 0; i < repeats && pending_.size() < kReceiveRingBytes; ++i) {
      one_frame(type, i == 0 ? lies : lies & 0x3f, kind);
      if (i == 0 && (lies & 0x01) != 0) {
        // The same lie again and again, from here on without its fields.
        const std::vector<uint8_t> lie(pending_.begin() + static_cast<ptrdiff_t>(before),
                                       pending_.end());
        for (++i; i < repeats && pending_.size() < kReceiveRingBytes; ++i) {
          pending_.insert(pending_.end(), lie.begin(), lie.end());
        }
      }
    }
  }

  void one_frame(FrameType type, uint8_t lies, uint8_t kind) {
    FrameHeader header;
    header.type = type;
    header.flags = (lies & 0x40) != 0 ? input_.byte() : right_flags(type, kind);
    header.incarnation = incarnation_;
    std::vector<uint8_t> payload;
    const bool is_write =
        type == FrameType::kData || type == FrameType::kZeroes || type == FrameType::kDiscard;
    if (is_write) {
      header.sequence = field(next_sequence_, lies & 0x04);
      header.epoch = static_cast<uint32_t>(field(epoch_, lies & 0x08));
      const uint64_t unit = kind >= 128 ? 4096 : kSectorSize;
      header.length = static_cast<uint32_t>(field((1 + input_.below(16)) * unit, lies & 0x10));
      header.offset = field(input_.below(kVolumeBytes / unit) * unit, lies & 0x02);
      if (type == FrameType::kData) {
        payload.assign(std::min<uint32_t>(header.length, kFramePayloadMax), kind);
      }
    } else {
      header.sequence = field(next_sequence_ - 1, lies & 0x04);
      header.epoch = static_cast<uint32_t>(field(right_epoch(type), lies & 0x08));
      header.length = static_cast<uint32_t>(field(0, lies & 0x10));
      header.offset = field(right_offset(type, kind), lies & 0x02);
      payload = right_payload(type, kind);
      if ((lies & 0x10) != 0) {
        const std::span<const uint8_t> bytes = input_.take(input_.byte());
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
    return type == FrameType::kEpochDone ? barrier_ : epoch_;
  }
  uint64_t right_offset(FrameType type, uint8_t kind) const {
    switch (type) {
      case FrameType::kBarrier:
        return epoch_writes_;
      case FrameType::kMap:
        return map_next_;
      case FrameType::kSyncDone:
        return 0x9999 + kind;
      case FrameType::kSyncDoneAck:
        return offered_;
      default:
        return kind % 3;
    }
  }
  std::vector<uint8_t> right_payload(FrameType type, uint8_t kind) {
    std::vector<uint8_t> out;
    if (type == FrameType::kMap) {
      // Clean and dirty runs to the end.
      uint64_t left = map() != nullptr ? map()->chunk_count() - map_next_ : 0;
      for (bool first = true; left > 0; first = false) {
        uint64_t run = kind < 64 || input_.empty() ? left : std::min<uint64_t>(left, input_.byte());
        if (run == 0 && !first) run = 1;
        left -= run;
        for (; run >= 0x80; run >>= 7) out.push_back(static_cast<uint8_t>(run | 0x80));
        out.push_back(static_cast<uint8_t>(run));
      }
    } else if (type == FrameType::kWritten) {
      std::vector<WrittenRange> ranges;
      const uint64_t first = sent_writes_.empty() ? 1 : sent_writes_.front().sequence;
      for (uint32_t i = 0; i <= kind % 4u; ++i) {
        const uint64_t from = kind < 128 ? first + input_.below(16) : input_.number();
        ranges.push_back(
            {from, 1 + static_cast<uint32_t>(input_.below(4)), kind % 16 == 15 ? -5 : 0});
      }
      out.resize(ranges.size() * kWrittenRangeBytes);
      encode_written(ranges, out.data());
    } else if (type == FrameType::kControl || type == FrameType::kHandshake) {
      out.assign(1 + kind * 8u, 'x');
    }
    return out;
  }

  // Encodes what the encoder would refuse, too.
  void put(FrameHeader header, std::vector<uint8_t> payload, uint8_t lies) {
    if (payload.size() > kFramePayloadMax) payload.resize(kFramePayloadMax);
    const uint8_t spoilt = (lies & 0x20) != 0 ? input_.byte() : 0xff;
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
    pending_.insert(pending_.end(), bytes.begin(), bytes.end());
    pending_.insert(pending_.end(), payload.begin(), payload.end());
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
        const bool fits = header.offset % kSectorSize == 0 && header.offset < node_.size() &&
                          header.length <= node_.size() - header.offset &&
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
        for (const SentWrite& write : sent_writes_) {
          if (!write.resync || write.epoch > header.epoch) continue;
          for (uint64_t at = 0; at < write.range.length / kSectorSize; ++at) {
            durable_.set(write.range.offset / kSectorSize + at);
          }
        }
        break;
      default:
        break;
    }
  }

  // What an honest peer would answer by now.
  void answer() {
    std::vector<WrittenRange> ranges;
    for (const SentWrite& write : sent_writes_) ranges.push_back({write.sequence, 1, 0});
    if (!ranges.empty() && ranges.size() <= kFramePayloadMax / kWrittenRangeBytes) {
      FrameHeader header;
      header.type = FrameType::kWritten;
      header.incarnation = incarnation_;
      std::vector<uint8_t> payload(ranges.size() * kWrittenRangeBytes);
      encode_written(ranges, payload.data());
      put(header, payload, 0);
    }
    if (barrier_ != 0) {
      FrameHeader header;
      header.type = FrameType::kEpochDone;
      header.incarnation = incarnation_;
      header.epoch = barrier_;
      put(header, {}, 0);
      std::erase_if(sent_writes_, [&](const SentWrite& write) { return write.epoch <= barrier_; });
      barrier_ = 0;
    }
    if (offered_ != 0) {
      FrameHeader header;
      header.type = FrameType::kSyncDoneAck;
      header.incarnation = incarnation_;
      header.offset = std::exchange(offered_, 0);
      put(header, {}, 0);
    }
  }

  // --- this node's world ---

  void command(const std::function<void(Done)>& start) {
    start([](int, const std::string&) {});
  }
  void write(uint64_t offset, uint64_t length, Op op, uint8_t flags) {
    auto request = std::make_unique<Request>();
    request->op = op;
    request->flags = flags;
    request->offset = offset;
    request->length = op == Op::kFlush ? 0 : length;
    buffers_.emplace_back(length, static_cast<uint8_t>(length));
    request->buffer = buffers_.back().data();
    waiting_.insert(request.get());
    Request* out = request.get();
    node_.requests.push_back(std::move(request));
    volume().submit(out);
  }
  void poll() {
    now_us_ += 50;
    const size_t used = volume().link_input(wire_in());
    check(used <= wire_in().size(), "more was read than there is");
    wire_in().erase(wire_in().begin(), wire_in().begin() + static_cast<ptrdiff_t>(used));
    volume().poll(now_us_);
    for (Request* request : std::exchange(node_.completed, {})) {
      check(waiting_.erase(request) == 1, "a request completed twice");
    }
    node_.events.clear();
  }
  // All I/O ends.
  void settle() {
    for (int i = 0; i < 10000 && node_.io_count() > 0; ++i) {
      node_.step_io();
      if (i % 16 == 0) volume().poll(now_us_);
    }
    volume().poll(now_us_);
  }

  void step() {
    switch (input_.byte() % 16) {
      case 0:
      case 1:
      case 2:
        frame();
        deliver(SIZE_MAX);
        break;
      case 3:
        frame();
        break;
      case 4: {
        const std::span<const uint8_t> bytes = input_.take(input_.byte());
        pending_.insert(pending_.end(), bytes.begin(), bytes.end());
        break;
      }
      case 5:
        deliver(1 + input_.byte());
        break;
      case 6:
        for (uint64_t left = 1 + input_.below(8); left > 0; --left) {
          if (!node_.step_io()) break;
        }
        break;
      case 7:
        settle();
        break;
      case 8: {
        const uint8_t how = input_.byte();
        if (how % 2 == 0) node_.fail_next_write = -5;
        if (how == 255)
          node_.fail = [](const Io& io) { return io.kind == IoKind::kFlush ? -5 : 0; };
        if (how == 253) node_.fail = nullptr;
        break;
      }
      case 9: {
        const uint64_t times_us[] = {1'000, 25'000, 300'000, 1'100'000, 5'100'000, 6'100'000};
        now_us_ += times_us[input_.byte() % 6];
        break;
      }
      case 10:
        application();
        break;
      case 11:
        node_.wire_out.clear();  // the peer reads
        break;
      case 12:
        order();
        break;
      case 13:
        answer();
        deliver(SIZE_MAX);
        break;
      case 14:
        if (volume().handshake_state(peer_id_).idle) {
          connect(input_.byte());
          remember();
        }
        break;
      default:
        settle();
        node_.wire_out.clear();
        answer();
        deliver(SIZE_MAX);
    }
  }

  void deliver(size_t most) {
    const size_t room = kReceiveRingBytes - std::min(kReceiveRingBytes, wire_in().size());
    const size_t bytes = std::min({most, pending_.size(), room});
    wire_in().insert(wire_in().end(), pending_.begin(),
                     pending_.begin() + static_cast<ptrdiff_t>(bytes));
    pending_.erase(pending_.begin(), pending_.begin() + static_cast<ptrdiff_t>(bytes));
  }

  void application() {
    if (waiting_.size() >= 64) return;
    const uint8_t kind = input_.byte();
    const Op ops[] = {Op::kWrite, Op::kWrite,   Op::kRead,
                      Op::kFlush, Op::kDiscard, Op::kWriteZeroes};
    const uint64_t offset = input_.below(kVolumeBytes / 512) * 512 + (kind >= 0xf0 ? 100 : 0);
    write(offset, 512 * (1 + kind / 6u % 64), ops[kind % 6], kind >= 0x80 ? kRequestFua : 0);
  }

  void order() {
    switch (input_.byte() % 8) {
      case 0:
        return command([&](Done done) { volume().promote(input_.flag(), std::move(done)); });
      case 1:
        return command([&](Done done) { volume().demote(std::move(done)); });
      case 2:
        return command([&](Done done) { volume().outdate_peer(std::move(done)); });
      case 3:
        return command([&](Done done) { volume().invalidate(0, std::move(done)); });
      case 4:
        volume().send_control("{}");
        return;
      case 5:
        return volume().suspend("a test");
      case 6:
        return volume().resume();
      default:
        return volume().link_stop("a test");
    }
  }

  // --- what must hold ---

  void remember() {
    marks_.clear();
    if (map() == nullptr) return;
    for (uint64_t chunk = 0; chunk < map()->chunk_count(); ++chunk) {
      marks_.push_back(map()->test(chunk));
    }
  }

  void check_state() {
    if (map() != nullptr && !marks_.empty()) {
      const uint64_t sectors = map()->chunk_bytes() / kSectorSize;
      for (uint64_t chunk = 0; chunk < marks_.size(); ++chunk) {
        if (!marks_[chunk] || map()->test(chunk)) continue;
        const uint64_t end = std::min(node_.size() / kSectorSize, (chunk + 1) * sectors);
        for (uint64_t sector = chunk * sectors; sector < end; ++sector) {
          check(durable_.test(sector) || received_.test(sector),
                "a bit was cleared for what was never copied, or not said to be durable (R9, R17)");
        }
      }
    }
    remember();
    check(node_.held <= kArenaBytes, "more buffers than the arena has");
    const size_t memory_bytes = __sanitizer_get_current_allocated_bytes();
    const size_t rings_bytes = node_.wire_out.size() + 3 * (wire_in().size() + pending_.size());
    check(memory_bytes < memory_bytes_before_ + kMemoryBytesMax + rings_bytes,
          "memory grows beyond its bound");
  }

  void end() {
    node_.fail = nullptr;
    volume().resume();
    volume().link_stop("the end");
    settle();
    for (int i = 0; i < 100 && !volume().handshake_state(peer_id_).idle; ++i) {
      now_us_ += 100'000;
      poll();
      settle();
    }
    bool stopped = false;
    volume().stop([&](int, const std::string&) { stopped = true; });
    for (int i = 0; i < 400 && (!stopped || !waiting_.empty()); ++i) {
      now_us_ += 100'000;
      settle();
      poll();
    }
    check(stopped, "the volume does not stop");
    check(waiting_.empty(), "a request never completed");
    check(node_.held == held_before_, "a buffer was not given back");
  }

  const size_t memory_bytes_before_ = __sanitizer_get_current_allocated_bytes();
  Input& input_;
  test::Random random_;
  LinkedNode node_;
  Uuid peer_id_;
  size_t held_before_ = 0;  // the metadata writer's own
  uint64_t now_us_ = 1'000'000;
  std::vector<uint8_t> pending_;  // said by the peer, not yet received
  std::deque<std::vector<uint8_t>> buffers_;
  std::set<Request*> waiting_;
  std::vector<bool> marks_;

  // the link
  uint32_t incarnation_ = 0x1000;
  uint64_t next_sequence_ = 1;
  uint32_t epoch_ = 1;
  uint64_t epoch_writes_ = 0;
  uint64_t map_next_ = 0;
  uint32_t barrier_ = 0;  // the last epoch that the volume closed
  uint64_t offered_ = 0;  // the generation that it offered
  std::vector<SentWrite> sent_writes_;
  Sectors durable_;   // resync of the volume's, said by the peer to be durable
  Sectors received_;  // resync of the peer's
};

}  // namespace
}  // namespace tidemark::fuzz

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tidemark::fuzz;
  Input input({data, size});
  Hostile(&input).run();
  return 0;
}
