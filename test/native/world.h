// Two nodes in one process: simulated disks, a simulated wire and one clock, around the real core.
// Everything follows from one seed.
#pragma once

#include <algorithm>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/attach.h"
#include "core/volume.h"
#include "random.h"

namespace tidemark::test {

// A disk with a volatile cache: what is not flushed may be lost, in any order, when the power goes.
class Disk {
 public:
  explicit Disk(uint64_t bytes) : durable_(bytes, 0), cached_(bytes, 0) {}
  uint64_t bytes() const { return cached_.size(); }
  std::vector<uint8_t>& cached() { return cached_; }
  const std::vector<uint8_t>& durable() const { return durable_; }
  void write(uint64_t offset, const uint8_t* data, uint64_t length, bool fua) {
    if (length == 0) return;
    std::memcpy(cached_.data() + offset, data, length);
    if (fua) {
      std::memcpy(durable_.data() + offset, data, length);
      // What is older and still cached does not come after it.
      for (Cached& older : dirty_) {
        const uint64_t begin = std::max(offset, older.offset);
        const uint64_t end = std::min(offset + length, older.offset + older.data.size());
        if (begin < end)
          std::memcpy(older.data.data() + (begin - older.offset), data + (begin - offset),
                      end - begin);
      }
    } else {
      dirty_.push_back({offset, std::vector<uint8_t>(data, data + length)});
    }
  }
  void flush() {
    for (const Cached& write : dirty_)
      std::memcpy(durable_.data() + write.offset, write.data.data(), write.data.size());
    dirty_.clear();
  }
  // Some of the unflushed writes made it, in part and in any order.
  void power_cut(Random& random) {
    for (const Cached& write : dirty_) {
      for (uint64_t at = 0; at < write.data.size(); at += 512) {
        if (random.below(2) == 0) {
          std::memcpy(durable_.data() + write.offset + at, write.data.data() + at,
                      std::min<uint64_t>(512, write.data.size() - at));
        }
      }
    }
    dirty_.clear();
    cached_ = durable_;
  }

 private:
  struct Cached {
    uint64_t offset;
    std::vector<uint8_t> data;
  };
  std::vector<uint8_t> durable_;
  std::vector<uint8_t> cached_;
  std::vector<Cached> dirty_;
};

class DiskMetadata : public MetadataIo {
 public:
  DiskMetadata(Disk& disk, uint64_t base) : disk_(disk), base_(base) {}
  int read(uint64_t offset, void* buffer, size_t bytes) override {
    std::memcpy(buffer, disk_.cached().data() + base_ + offset, bytes);
    return 0;
  }
  int write(uint64_t offset, const void* buffer, size_t bytes) override {
    disk_.write(base_ + offset, static_cast<const uint8_t*>(buffer), bytes, false);
    return 0;
  }
  int flush() override {
    disk_.flush();
    return 0;
  }

 private:
  Disk& disk_;
  uint64_t base_;
};

class Node : public Host {
 public:
  const std::string& name() const { return name_; }
  // `apart`: the metadata lie on a disk of their own.
  Node(std::string name, Random& random, const Geometry& geometry, uint64_t device_bytes,
       bool apart = false)
      : name_(std::move(name)), random_(random), disk_(device_bytes), apart_(apart) {
    Split split;
    const Placement placement = apart ? Placement::kExternal : Placement::kEnd;
    const auto error = split_device(device_bytes, 512, placement, 0, geometry, &split);
    if (error) throw std::runtime_error(*error);
    split_ = split;
    if (apart) meta_disk_ = Disk(split.meta_offset + split.layout.bytes());
    create(placement);
  }

  // A blank disk in the place of this one, with an identity of its own.
  void replace_disk() {
    disk_ = Disk(disk_.bytes());
    if (apart_) meta_disk_ = Disk(meta_disk_.bytes());
    create(apart_ ? Placement::kExternal : Placement::kEnd);
  }

  void attach() {
    DiskMetadata io(meta_disk(), split_.meta_offset);
    std::unique_ptr<Attachment> attachment;
    if (auto failed =
            attach_metadata(io, split_.layout.bytes(), {disk_.bytes(), 512}, &attachment)) {
      throw std::runtime_error(failed->message);
    }
    warnings = attachment->warnings;
    attachment_ = attachment.get();
    volume_ = std::make_unique<Volume>(*this, std::move(attachment), 512, !apart_);
  }
  ~Node() override { drop_volume(); }
  // The process dies (the disk's cache stays), or the power goes.
  void crash(bool power) {
    requests.clear();
    while (!out_.empty()) {
      Io* io = take();
      if (random_.below(2) == 0) apply(io);  // it may have reached the disk
    }
    drop_volume();
    wire_out.clear();
    if (power) {
      disk_.power_cut(random_);
      if (apart_) meta_disk_.power_cut(random_);
    }
  }
  // Garbage over half of the activity log's ring.
  void damage_log() {
    const Layout& layout = split_.layout;
    const std::vector<uint8_t> garbage(layout.log_ring_blocks / 2 * kBlockSize, 0x5a);
    meta_disk().write(split_.meta_offset + layout.log_first_block * kBlockSize, garbage.data(),
                      garbage.size(), true);
  }
  bool up() const { return volume_ != nullptr; }
  Volume& volume() { return *volume_; }
  // The volume's own, to look at.
  const Attachment& attachment() const { return *attachment_; }
  Disk& disk() { return disk_; }
  const Uuid& id() const { return id_; }
  uint64_t size() const { return split_.layout.geometry.volume_bytes; }
  const uint8_t* data() { return disk_.cached().data() + split_.data_offset; }

  // One I/O completes, any of those under way.
  bool step_io() {
    if (out_.empty() || volume_ == nullptr || hang) return false;
    Io* io = take();
    if (holds && holds(*io)) {
      out_.push_back(io);
      return false;
    }
    io->result = 0;
    if (fail) io->result = fail(*io);
    if (io->result != 0) {
      // it never got to the disk
    } else if (fail_next_write != 0 && io->target == IoTarget::kData &&
               io->kind == IoKind::kWrite) {
      io->result = fail_next_write;
      fail_next_write = 0;
    } else {
      apply(io);
    }
    volume_->io_done(io);
    return true;
  }
  size_t io_count() const { return out_.size(); }
  // A new link begins.
  void clear_wires() {
    wire_in.clear();
    wire_left = 0;
    wire_out.clear();
  }

  // Host
  void submit(Io* io) override { out_.push_back(io); }
  void complete(Request* request) override { completed.push_back(request); }
  uint8_t* buffer_get(size_t bytes) override {
    if (buffers_fail_one_in != 0 && up() && random_.chance(buffers_fail_one_in)) return nullptr;
    auto* buffer = static_cast<uint8_t*>(std::aligned_alloc(4096, (bytes + 4095) / 4096 * 4096));
    buffers_out_.insert(buffer);
    return buffer;
  }
  void buffer_put(uint8_t* buffer, size_t) override {
    buffers_out_.erase(buffer);
    std::free(buffer);
  }
  uint64_t random_u64() override { return random_.next(); }
  void event(Event event) override { events.push_back(std::move(event)); }
  size_t send_space() override {
    return wire_out.size() > wire_bytes ? 0 : wire_bytes - wire_out.size();
  }
  uint8_t* send_reserve(size_t bytes) override {
    reserved_.assign(bytes, 0);
    return reserved_.data();
  }
  void send_commit(size_t bytes) override {
    wire_out.insert(wire_out.end(), reserved_.begin(), reserved_.begin() + bytes);
  }

  size_t wire_bytes = 4u << 20;      // room of the send ring
  size_t receive_bytes = SIZE_MAX;   // ... and of the receive ring
  uint64_t buffers_fail_one_in = 0;  // how often there is no buffer; 0: never
  std::function<int(const Io& io)>
      fail;  // what an I/O ends with instead of being done; 0: it is done
  std::deque<uint8_t> wire_out;
  std::vector<uint8_t> wire_in;
  size_t wire_left = 0;  // of it, when the volume looked last; 0: nothing, or memory was short
  std::vector<Event> events;
  std::vector<Request*> completed;
  std::vector<std::unique_ptr<Request>> requests;
  std::vector<std::string> warnings;
  int fail_next_write = 0;
  bool hang = false;                        // no I/O ends
  std::function<bool(const Io& io)> holds;  // these do not end

 private:
  void create(Placement placement) {
    Superblock sb;
    sb.placement = placement;
    sb.geometry = split_.layout.geometry;
    sb.device_bytes = disk_.bytes();
    sb.data_offset = split_.data_offset;
    sb.meta_offset = split_.meta_offset;
    for (uint8_t& byte : sb.metadata_id.bytes) byte = static_cast<uint8_t>(random_.next());
    for (uint8_t& byte : sb.node_id.bytes) byte = static_cast<uint8_t>(random_.next());
    id_ = sb.node_id;
    DiskMetadata io(meta_disk(), split_.meta_offset);
    if (auto failed = create_metadata(io, sb, split_.layout, false))
      throw std::runtime_error(failed->message);
  }
  // Buffers of I/O that was under way are the host's, as the engine's arena is.
  void drop_volume() {
    volume_.reset();
    for (uint8_t* buffer : buffers_out_) std::free(buffer);
    buffers_out_.clear();
  }
  Io* take() {
    const size_t at = random_.below(out_.size());
    Io* io = out_[at];
    out_.erase(out_.begin() + static_cast<ptrdiff_t>(at));
    return io;
  }
  void apply(Io* io) {
    const uint64_t base = io->target == IoTarget::kMeta ? split_.meta_offset : split_.data_offset;
    Disk& disk = io->target == IoTarget::kMeta ? meta_disk() : disk_;
    switch (io->kind) {
      case IoKind::kRead:
        std::memcpy(io->buffer, disk.cached().data() + base + io->offset, io->length);
        break;
      case IoKind::kWrite:
        disk.write(base + io->offset, io->buffer, io->length, (io->flags & kIoFua) != 0);
        break;
      case IoKind::kFlush:
        disk.flush();
        break;
      case IoKind::kDiscard:
      case IoKind::kWriteZeroes: {
        const std::vector<uint8_t> zeroes(io->length, 0);
        disk.write(base + io->offset, zeroes.data(), zeroes.size(), false);
        break;
      }
    }
  }

  std::string name_;
  Random& random_;
  Disk& meta_disk() { return apart_ ? meta_disk_ : disk_; }

  Disk disk_;
  bool apart_;
  Disk meta_disk_{0};
  Split split_;
  Uuid id_;
  std::set<uint8_t*> buffers_out_;
  std::unique_ptr<Volume> volume_;
  const Attachment* attachment_ = nullptr;
  std::vector<Io*> out_;
  std::vector<uint8_t> reserved_;
};

class World {
 public:
  World(uint64_t seed, const Geometry& geometry, uint64_t device_bytes, bool apart = false)
      : random(seed),
        a("a", random, geometry, device_bytes, apart),
        b("b", random, geometry, device_bytes, apart) {}

  void poll(Node& node) {
    if (!node.up()) return;
    give(node);
    node.volume().poll(now_us);
  }
  // All I/O ends, but for what is held.
  void settle(Node& node) {
    while (node.step_io()) {
    }
    node.volume().poll(now_us);
  }
  // Shows the volume all that came over the wire, once. How many bytes it took.
  size_t give(Node& node) {
    Volume& volume = node.volume();
    const bool unasked = node.wire_left != 0 && node.wire_in.size() == node.wire_left &&
                         node.buffers_fail_one_in == 0 && !volume.takes_input();
    const size_t used = volume.link_input(node.wire_in);
    // Else an owner that sleeps until it is asked would sleep too long. A link's end takes all.
    if (unasked && used != 0 && volume.status().connection != Connection::kStandAlone)
      throw std::logic_error("frames that were held back were taken, and not asked for");
    // ... or would not sleep any more.
    if (volume.takes_input()) throw std::logic_error("frames were left that could be taken");
    node.wire_in.erase(node.wire_in.begin(), node.wire_in.begin() + static_cast<ptrdiff_t>(used));
    node.wire_left = node.buffers_fail_one_in == 0 ? node.wire_in.size() : 0;
    return used;
  }
  void carry(Node& from, Node& to) {
    if (!wire_up) return;
    const size_t room = to.receive_bytes - std::min(to.receive_bytes, to.wire_in.size());
    const size_t bytes = std::min<size_t>({from.wire_out.size(), room, 1 + random.below(200'000)});
    to.wire_in.insert(to.wire_in.end(), from.wire_out.begin(),
                      from.wire_out.begin() + static_cast<ptrdiff_t>(bytes));
    from.wire_out.erase(from.wire_out.begin(),
                        from.wire_out.begin() + static_cast<ptrdiff_t>(bytes));
  }
  // One small thing happens.
  void step() {
    now_us += 1 + random.below(200);
    switch (random.below(6)) {
      case 0:
        a.step_io();
        break;
      case 1:
        b.step_io();
        break;
      case 2:
        carry(a, b);
        break;
      case 3:
        carry(b, a);
        break;
      default:
        break;
    }
    poll(a);
    poll(b);
  }
  // Until `done`, or for so many steps that something must be stuck.
  bool run(const std::function<bool()>& done, uint64_t steps_max = 400'000) {
    for (uint64_t step_count = 0; step_count < steps_max; ++step_count) {
      if (done()) return true;
      step();
    }
    return done();
  }
  Request* write(Node& node, uint64_t offset, uint64_t length, uint8_t fill, uint8_t flags = 0,
                 Op op = Op::kWrite) {
    auto request = std::make_unique<Request>();
    request->op = op;
    request->flags = flags;
    request->offset = offset;
    request->length = length;
    buffers.emplace_back(length, fill);
    request->buffer = buffers.back().data();
    request->result = 1;
    Request* out = request.get();
    node.requests.push_back(std::move(request));
    node.volume().submit(out);
    return out;
  }
  Request* flush(Node& node) { return write(node, 0, 0, 0, 0, Op::kFlush); }
  bool wait(Request* request) {
    return run([&] { return request->result <= 0; });
  }
  bool finish(const std::function<void(Done)>& command, int* error) {
    bool done = false;
    command([&](int result, const std::string&) {
      done = true;
      *error = result;
    });
    return run([&] { return done; });
  }
  // What the handshake would agree on: `source` is null for nothing to do.
  bool connect(Node* source, bool full, Protocol protocol = Protocol::kC) {
    wire_up = true;
    for (Node* node : {&a, &b}) {
      node->clear_wires();
    }
    if (!run([&] {
          return a.volume().handshake_state(b.id()).idle && b.volume().handshake_state(a.id()).idle;
        }))
      return false;
    const HandshakeState sa = a.volume().handshake_state(b.id());
    const HandshakeState sb = b.volume().handshake_state(a.id());
    const uint32_t incarnation = static_cast<uint32_t>(random.next()) | 1;
    const uint64_t generation = random.next();
    const auto params = [&](const HandshakeState& mine, const HandshakeState& peer,
                            bool is_source) {
      LinkParams out;
      out.serial = mine.serial;
      out.peer_id = peer.node_id;
      out.peer_name = &peer == &sa ? a.name() : b.name();
      out.incarnation = incarnation;
      out.protocol = protocol;
      out.side = source == nullptr ? SyncSide::kNone
                 : is_source       ? SyncSide::kSource
                                   : SyncSide::kTarget;
      out.full = full;
      out.sync_generation = generation;
      out.peer_current = peer.current;
      out.peer_bitmap = peer.bitmap;
      out.peer_history = peer.history;
      out.peer_flags = peer.flags;
      out.peer_role = peer.role;
      out.peer_disk = peer.disk;
      return out;
    };
    int error_a = 1;
    int error_b = 1;
    a.volume().link_prepare(params(sa, sb, source == &a),
                            [&](int error, const std::string&) { error_a = error; });
    b.volume().link_prepare(params(sb, sa, source == &b),
                            [&](int error, const std::string&) { error_b = error; });
    if (!run([&] { return error_a <= 0 && error_b <= 0; }) || error_a != 0 || error_b != 0)
      return false;
    if (when_prepared) when_prepared();
    return a.volume().link_start() && b.volume().link_start();
  }
  bool connected() {
    return a.volume().status().connection == Connection::kConnected &&
           b.volume().status().connection == Connection::kConnected;
  }
  void cut() {
    wire_up = false;
    if (a.up()) a.volume().link_stop("cut");
    if (b.up()) b.volume().link_stop("cut");
  }
  bool identical() { return std::memcmp(a.data(), b.data(), a.size()) == 0; }

  Random random;
  Node a;
  Node b;
  std::function<void()> when_prepared;  // both sides, and no frame flows yet
  bool wire_up = true;
  uint64_t now_us = 1'000'000;
  std::deque<std::vector<uint8_t>> buffers;
};

}  // namespace tidemark::test
