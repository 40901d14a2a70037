// A real volume, linked with a peer that lies: the handshake was done, and then come the frames
// that the input says, in any pieces, while disks and the application go on.
//
// What must hold whatever comes: nothing crashes or leaks, memory stays within bounds, every
// request completes exactly once, and no bit is cleared unless what it stands for was copied and
// said to be durable by the one who has to say it (R9, R17).
#include <sanitizer/allocator_interface.h>
#include <sanitizer/common_interface_defs.h>

#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "core/check.h"
#include "core/frame.h"
#include "input.h"
#include "linked_node.h"
#include "lying_peer.h"

namespace tidemark::fuzz {
namespace {

// What one volume of this size and one link may have in memory beside its rings and buffers.
constexpr size_t kMemoryBytesMax = 24u << 20;

class Hostile {
 public:
  explicit Hostile(Input* input)
      : input_(*input),
        random_(1),
        node_(random_, kChunkBytesMin << 2 * (input->byte() % 4)),
        peer_(input, &node_) {
    for (uint8_t& byte : peer_id_.bytes) byte = 0x77;
    node_.sent = [this](const FrameHeader& header) { peer_.heard(header); };
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
    params.peer_current = params.side == SyncSide::kNone ? state.current : kPeerGeneration;
    params.peer_bitmap = (kind & 16) != 0 ? state.current : 0;
    params.peer_role = state.role == Role::kPrimary ? Role::kSecondary : Role::kPrimary;
    params.peer_disk = DiskState::kUpToDate;
    wire_in().clear();
    node_.wire_out.clear();
    peer_.begin(incarnation_);
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
    check(!volume().takes_input(), "what could have been taken was left");
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
        peer_.frame();
        deliver(SIZE_MAX);
        break;
      case 3:
        peer_.frame();
        break;
      case 4: {
        const std::span<const uint8_t> bytes = input_.take(input_.byte());
        peer_.said().insert(peer_.said().end(), bytes.begin(), bytes.end());
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
        peer_.answer();
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
        peer_.answer();
        deliver(SIZE_MAX);
    }
  }

  void deliver(size_t most) {
    const size_t room = kReceiveRingBytes - std::min(kReceiveRingBytes, wire_in().size());
    std::vector<uint8_t>& said = peer_.said();
    const size_t bytes = std::min({most, said.size(), room});
    wire_in().insert(wire_in().end(), said.begin(), said.begin() + static_cast<ptrdiff_t>(bytes));
    said.erase(said.begin(), said.begin() + static_cast<ptrdiff_t>(bytes));
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
    const uint8_t kind = input_.byte();
    switch (kind % 8) {
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
      case 5: {
        if (kind < 128) return volume().suspend("a test");
        Limits limits;
        limits.on_io_error = static_cast<OnIoError>(kind / 8 % 3);
        return volume().set_limits(limits);
      }
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
          check(peer_.durable().test(sector) || peer_.received().test(sector),
                "a bit was cleared for what was never copied, or not said to be durable (R9, R17)");
        }
      }
    }
    remember();
    check(node_.held <= kArenaBytes, "more buffers than the arena has");
    const size_t memory_bytes = __sanitizer_get_current_allocated_bytes();
    const size_t rings_bytes = node_.wire_out.size() + 3 * (wire_in().size() + peer_.said().size());
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
  LyingPeer peer_;
  Uuid peer_id_;
  size_t held_before_ = 0;  // the metadata writer's own
  uint64_t now_us_ = 1'000'000;
  std::deque<std::vector<uint8_t>> buffers_;
  std::set<Request*> waiting_;
  std::vector<bool> marks_;
  uint32_t incarnation_ = 0x1000;
};

}  // namespace
}  // namespace tidemark::fuzz

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tidemark::fuzz;
  Input input({data, size});
  Hostile(&input).run();
  return 0;
}
