#include "process.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <exception>
#include <iterator>

#include "core/frame.h"
#include "inside.h"
#include "stamp.h"

namespace tidemark::sim {
namespace {

// Rings come back when nobody looks at their memory any more, and are as new then: whether one was
// used before must make no difference.
std::vector<std::unique_ptr<ByteRing>>& idle_rings() {
  static auto* rings = new std::vector<std::unique_ptr<ByteRing>>();
  return *rings;
}

std::shared_ptr<ByteRing> make_ring() {
  std::unique_ptr<ByteRing> ring;
  if (!idle_rings().empty()) {
    ring = std::move(idle_rings().back());
    idle_rings().pop_back();
  } else {
    ring = std::make_unique<ByteRing>();
    if (ring->open(kRingBytes) != 0) throw std::bad_alloc();
  }
  return {ring.release(), [](ByteRing* used) {
            used->publish();
            used->consume(used->unread().size());
            used->unread_or_sleep();
            used->want_room();
            used->consume(0);
            idle_rings().emplace_back(used);
          }};
}

size_t target_of(const Io& io) { return static_cast<size_t>(io.target); }
bool changes_disk(const Io& io) { return io.kind != IoKind::kRead && io.kind != IoKind::kFlush; }

// Once in so many I/Os one of those lands that a killed daemon left.
constexpr uint64_t kLateOneIn = 30;

// Io::host_state
constexpr size_t kFlushPoint = 0;
constexpr size_t kFingerprint = 1;

}  // namespace

void take_part(const Io& io, uint64_t place, Disk& disk, Random& random) {
  const uint64_t outcome = random.below(4);
  if (outcome == 0 || io.kind == IoKind::kRead) return;
  if (io.kind == IoKind::kFlush) {
    if (outcome > 1) disk.flush(io.host_state[kFlushPoint]);
    return;
  }
  const uint8_t* data = io.kind == IoKind::kWrite ? io.buffer : nullptr;
  const bool fua = (io.flags & kIoFua) != 0;
  if (outcome == 1) {
    disk.write_torn(place, data, io.length, fua, random);
  } else {
    disk.write(place, data, io.length, fua);
  }
}

Process::Process(Machine& machine, std::string name, EngineCallbacks callbacks)
    : machine_(machine),
      name_(std::move(name)),
      callbacks_(std::move(callbacks)),
      send_(make_ring()),
      receive_(make_ring()) {}

Process::~Process() = default;

bool Process::start(bool suspended, AttachReport* report, EngineError* error) {
  std::unique_ptr<Attachment> attachment;
  MetadataError wrong;
  machine_.data().forgive();
  machine_.meta().forgive();
  Disk* data = machine_.options().external ? &machine_.data() : nullptr;
  machine_.attach(machine_.meta(), data, &machine_.random, &machine_.faults, &attachment, &wrong);
  if (!wrong.code.empty()) {
    *error = {wrong.code, 0, "", "'" + machine_.options().name + "': " + wrong.message};
    return false;
  }
  const Superblock& sb = attachment->superblock;
  report->volume_bytes = sb.geometry.volume_bytes;
  report->block_bytes = machine_.options().block_bytes;
  report->direct_io = true;
  report->crashed = attachment->crashed;
  report->crashed_primary =
      attachment->crashed && (sb.flags & (kNodePrimary | kNodeCrashedPrimary)) != 0;
  report->replayed_extents = attachment->replayed_extents;
  report->replayed_chunks = attachment->replayed_chunks;
  report->warnings = attachment->warnings;
  volume_ = std::make_unique<Volume>(*this, std::move(attachment), machine_.options().block_bytes,
                                     !machine_.options().external);
  constructing_ = false;
  if (suspended) volume_->suspend("the device is being taken over");
  return true;
}

const VolumeImpl* Process::volume() const {
  return volume_ != nullptr && !broken_ ? &inside(*volume_) : nullptr;
}

// A broken invariant of the core ends the simulation, with its own words.
template <typename Step>
void Process::guarded(Step step) {
  if (broken_ || volume_ == nullptr) return;
  try {
    step();
  } catch (const std::exception& exception) {
    broken_ = true;
    machine_.violate(exception.what());
  }
}

// --- steps ---

std::string Process::complete_io(double pick) {
  if (out_.empty() || machine_.faults.hang) return {};
  if (!machine_.late.empty() && machine_.random.one_in(kLateOneIn))
    machine_.late.land_one(machine_.random);
  const auto at = std::min(out_.size() - 1, static_cast<size_t>(pick * double(out_.size())));
  Io* io = out_[at];
  out_.erase(out_.begin() + static_cast<ptrdiff_t>(at));
  std::string text = describe(*io);
  io->result = perform(io);
  if (io->result != 0) text += std::string(" fails: ") + std::strerror(-io->result);
  again_ = true;
  guarded([&] { volume_->io_done(io); });
  return text;
}

void Process::run_tasks() {
  std::deque<std::function<void()>> tasks;
  tasks.swap(tasks_);
  for (const auto& task : tasks) {
    if (ending_) break;
    guarded(task);
  }
}

void Process::link_input() {
  const std::span<const uint8_t> bytes = receive_->unread();
  link_left_ = 0;
  if (bytes.empty()) return;
  const size_t used = volume_->link_input(bytes);
  if (used > bytes.size()) throw std::logic_error("link_input used more bytes than there are");
  link_left_ = bytes.size() - used;
  if (volume_->takes_input()) throw std::logic_error("link_input left what it could have taken");
  if (used > 0 && receive_->consume(used) && callbacks_.room) callbacks_.room();
}

void Process::poll(uint64_t now_us) {
  if (ended_) return;
  now_us_ = std::max(now_us_, now_us);
  again_ = false;
  starved_ = false;
  run_tasks();
  if (!ending_) {
    guarded([this] {
      link_input();
      volume_->poll(now_us_);
      again_ = again_ || (link_left_ > 0 && volume_->takes_input());
    });
    if (send_->publish() && callbacks_.outgoing) callbacks_.outgoing();
    again_ = again_ || starved_;
  }
  if (const std::string wrong = requests_.check_completed(); !wrong.empty())
    machine_.violate(wrong);
  if (ending_) end();
}

uint64_t Process::next_deadline_us() const {
  if (ended_ || broken_ || volume_ == nullptr) return UINT64_MAX;
  if (again_ || ending_ || !tasks_.empty() || receive_->unread().size() > link_left_)
    return now_us_;
  return std::max(now_us_, volume_->next_deadline_us());
}

void Process::submit(const Ask& ask, uint64_t id) {
  again_ = true;
  Request* request = requests_.make(ask, id);
  guarded([&] { volume_->submit(request); });
}

void Process::die(CrashKind kind) {
  while (!out_.empty()) {
    const size_t at = machine_.random.below(out_.size());
    Io* io = out_[at];
    const bool late = kind == CrashKind::kProcess && machine_.random.one_in(3);
    late ? come_late(*io) : take_part(*io, place_of(*io), disk_of(*io), machine_.random);
    out_.erase(out_.begin() + static_cast<ptrdiff_t>(at));
  }
  machine_.unfinished = requests_.unfinished();
  if (broken_) static_cast<void>(volume_.release());  // nobody knows what it still holds
  volume_.reset();
  tasks_.clear();
  device_.clear();
  ended_ = true;
}

// --- the engine's calls ---

void Process::post(std::function<void(Volume&)> task) {
  if (ended_) return;
  tasks_.push_back([this, task = std::move(task)] { task(*volume_); });
}

void Process::start_frontend(const char* kind, bool needs_primary, std::string device,
                             Engine::FrontendDone done) {
  post([=, this](Volume& volume) {
    const auto refuse = [&](const char* code, const std::string& why) {
      const EngineError error{
          code, 0, "",
          std::string("cannot start the ") + kind + " frontend of volume '" + name_ + "': " + why};
      done(&error, "");
    };
    if (closing_) return refuse("CLOSED", "the volume is being stopped");
    if (serving()) return refuse("FRONTEND_EXISTS", "it is served on " + device_ + " already");
    if (needs_primary && volume.status().role != Role::kPrimary)
      return refuse("NOT_PRIMARY", "this node is secondary; make it primary first");
    device_ = device;
    done(nullptr, device_);
  });
}

void Process::stop_frontend(bool force, Engine::FrontendDone done) {
  post([=, this](Volume& volume) {
    const auto refuse = [&](const char* code, const std::string& why) {
      const EngineError error{code, 0, "", "volume '" + name_ + "': " + why};
      done(&error, "");
    };
    if (closing_) return refuse("FRONTEND_CHANGING", "its frontend is being started or stopped");
    if (!serving()) return refuse("NO_FRONTEND", "no frontend is running");
    // Who has requests out has the device open.
    if (!force && requests_.out() != 0)
      return refuse("IN_USE", std::to_string(requests_.out()) + " requests are under way");
    const std::string device = std::exchange(device_, "");
    volume.drop_suspended();
    done(nullptr, device);
  });
}

VolumeStatus Process::status() {
  VolumeStatus status;
  // The engine answers at the end of a turn that begins later than the question.
  run_tasks();
  guarded([&] { status = volume_->status(); });
  status.now_us = now_us_;
  return status;
}

size_t Process::feed(std::span<const uint8_t> bytes) {
  if (ended_) return 0;
  const size_t held = receive_->capacity() - receive_->space();
  const size_t room = receive_bound() > held ? receive_bound() - held : 0;
  const size_t used = std::min(room, bytes.size());
  if (used > 0) {
    std::memcpy(receive_->reserve(used), bytes.data(), used);
    receive_->commit(used);
    receive_->publish();
  }
  if (used < bytes.size()) receive_->want_room();
  return used;
}

void Process::consumed(size_t bytes) {
  if (send_->consume(bytes)) again_ = true;
}

RingMemory Process::send_memory() const { return {send_, send_->memory(), send_->capacity() * 2}; }

void Process::reset_link_bytes() {
  run_tasks();
  receive_->consume(receive_->unread().size());
  link_left_ = 0;
  send_->publish();
  send_->consume(send_->unread().size());
  send_->unread_or_sleep();
}

void Process::close(bool abandon) {
  post([this, abandon](Volume&) { begin_close(abandon); });
}

void Process::begin_close(bool abandon) {
  closing_ = true;
  abandoned_ = abandoned_ || abandon;
  device_.clear();
  if (abandoned_) {
    ending_ = true;
    return;
  }
  volume_->stop([this](int error, const std::string& message) {
    stop_failed_ = error != 0;
    if (error != 0)
      event({EventKind::kIoError, "volume '" + name_ + "': not stopped cleanly: " + message});
    ending_ = true;
  });
}

// The end of close(): what is under way lands, and nothing may be left over after a clean stop.
void Process::end() {
  while (!out_.empty()) {
    const size_t at = machine_.random.below(out_.size());
    Io* io = out_[at];
    out_.erase(out_.begin() + static_cast<ptrdiff_t>(at));
    io->result = perform(io);
    if (!abandoned_) guarded([&] { volume_->io_done(io); });
  }
  machine_.unfinished = requests_.unfinished();
  machine_.answered = requests_.take_answered();
  const uint64_t left = requests_.out();
  if (broken_) static_cast<void>(volume_.release());
  volume_.reset();
  tasks_.clear();
  if (!abandoned_ && !stop_failed_ && !broken_) {
    if (left != 0)
      machine_.violate(std::to_string(left) + " requests were out when the volume had stopped");
    else if (buffers_.count() != 0)
      machine_.violate(std::to_string(buffers_.count()) + " buffers, " +
                       std::to_string(buffers_.bytes()) + " bytes, were not given back");
  }
  ended_ = true;
  const std::shared_ptr<Process> self = shared_from_this();
  machine_.process.reset();
}

// --- I/O ---

Disk& Process::disk_of(const Io& io) const {
  return io.target == IoTarget::kMeta ? machine_.meta() : machine_.data();
}

uint64_t Process::place_of(const Io& io) const {
  return io.offset + (io.target == IoTarget::kMeta ? machine_.meta_offset() : 0);
}

std::string Process::describe(const Io& io) const {
  static constexpr const char* kKinds[] = {"read", "write", "flush", "discard", "write-zeroes"};
  std::string text = io.target == IoTarget::kMeta ? "meta " : "data ";
  text += kKinds[static_cast<size_t>(io.kind)];
  if (io.kind == IoKind::kFlush) return text;
  if (io.target == IoTarget::kData) {
    text += ' ' + std::to_string(io.offset) + '+' + std::to_string(io.length);
  } else {
    const Layout& layout = machine_.layout();
    const uint64_t block = io.offset / kBlockSize;
    if (block == 0 || block + 1 == layout.total_blocks) {
      text += " superblock " + std::to_string(block == 0 ? 0 : 1);
    } else if (block < layout.map_first_block) {
      text += " log block " + std::to_string(block - layout.log_first_block);
    } else {
      text += " map block " + std::to_string(block - layout.map_first_block);
    }
  }
  return text + ((io.flags & kIoFua) != 0 ? " fua" : "");
}

void Process::judge_submitted(const Io& io) {
  const bool meta = io.target == IoTarget::kMeta;
  const uint64_t unit = meta ? kBlockSize : machine_.options().block_bytes;
  const uint64_t bytes = meta ? machine_.layout().bytes() : machine_.volume_bytes();
  if (io.kind == IoKind::kFlush) return;
  if (io.length == 0 || io.offset % unit != 0 || io.length % unit != 0 || io.offset > bytes ||
      io.length > bytes - io.offset) {
    machine_.violate(describe(io) + " is not aligned, or leaves its area of " +
                     std::to_string(bytes) + " bytes");
  }
  if (!changes_disk(io)) return;
  const ByteRange range{io.offset, io.length};
  for (const Io* other : out_) {
    if (other->target == io.target && changes_disk(*other) &&
        range.overlaps({other->offset, other->length})) {
      machine_.violate("R5: " + describe(io) + " was submitted while " + describe(*other) +
                       " is in flight");
    }
  }
}

// R3: what leaves the log with this block was flushed. A copy that follows writes without the log.
void Process::judge_evictions(const Io& io) {
  const Layout& layout = machine_.layout();
  const VolumeImpl* core = volume();
  if (core == nullptr || io.target != IoTarget::kMeta || io.kind != IoKind::kWrite) return;
  const uint64_t log = layout.log_block(core->sb().node_slot, 0) * kBlockSize;
  if (io.offset < log || io.offset >= log + layout.log_ring_blocks * kBlockSize) return;
  const std::vector<uint32_t> hot = core->log->active();
  std::vector<uint32_t> evicted;
  std::set_difference(hot_.begin(), hot_.end(), hot.begin(), hot.end(),
                      std::back_inserter(evicted));
  hot_ = hot;
  if (evicted.empty() || core->role != Role::kPrimary ||
      core->link.state == Connection::kSyncTarget) {
    return;
  }
  for (const uint64_t page : machine_.data().volatile_pages()) {
    const auto extent = static_cast<uint32_t>(page * kPageBytes / core->extent_bytes());
    if (!std::binary_search(evicted.begin(), evicted.end(), extent)) continue;
    machine_.violate("R3: extent " + std::to_string(extent) +
                     " leaves the log, and what was written to page " + std::to_string(page) +
                     " is in the disk's volatile cache");
  }
}

void Process::submit(Io* io) {
  judge_submitted(*io);
  judge_evictions(*io);
  io->host_state[kFlushPoint] = disk_of(*io).flush_point();
  if (io->kind == IoKind::kWrite)
    io->host_state[kFingerprint] = fingerprint(io->buffer, io->length);
  out_.push_back(io);
}

int32_t Process::perform(Io* io) {
  Disk& disk = disk_of(*io);
  Random& random = machine_.random;
  const Faults& faults = machine_.faults;
  const size_t target = target_of(*io);
  const uint64_t place = place_of(*io);
  if (io->kind == IoKind::kRead) {
    if (random.one_in(faults.read_error_one_in[target])) return -EIO;
    disk.read(place, io->buffer, io->length);
    return 0;
  }
  if (io->kind == IoKind::kFlush) {
    if (random.one_in(faults.flush_error_one_in[target])) {
      disk.flush_failed(io->host_state[kFlushPoint], random);
      return -EIO;
    }
    disk.flush(io->host_state[kFlushPoint]);
    return 0;
  }
  const uint8_t* data = io->kind == IoKind::kWrite ? io->buffer : nullptr;
  if (data != nullptr && fingerprint(data, io->length) != io->host_state[kFingerprint])
    machine_.violate(describe(*io) + ": its buffer was changed while it was in flight");
  const bool fua = (io->flags & kIoFua) != 0;
  if (random.one_in(faults.write_error_one_in[target])) {
    const uint64_t outcome = random.below(3);
    if (outcome == 1) disk.write_torn(place, data, io->length, false, random);
    if (outcome == 2) disk.write(place, data, io->length, false);
    return -EIO;
  }
  disk.write(place, data, io->length, fua);
  return 0;
}

void Process::come_late(const Io& io) {
  if (!changes_disk(io)) return;
  const uint8_t* data = io.kind == IoKind::kWrite ? io.buffer : nullptr;
  machine_.late.keep(disk_of(io), place_of(io), data, io.length, (io.flags & kIoFua) != 0);
}

// --- the core's side ---

void Process::complete(Request* request) {
  const VolumeImpl* inner = volume();
  const uint32_t slot = inner != nullptr && inner->link_active() ? inner->link.slot : kNoSlot;
  if (const std::string wrong = requests_.complete(request, slot); !wrong.empty())
    machine_.violate(wrong);
}

uint8_t* Process::buffer_get(size_t bytes) {
  if (!constructing_ && machine_.random.one_in(machine_.faults.no_buffer_one_in)) {
    starved_ = true;
    return nullptr;
  }
  return buffers_.get(bytes);
}

void Process::buffer_put(uint8_t* buffer, size_t bytes) {
  if (const std::string wrong = buffers_.put(buffer, bytes); !wrong.empty())
    machine_.violate(wrong);
}

void Process::event(Event event) {
  if (callbacks_.event) callbacks_.event(std::move(event));
}

size_t Process::send_bound() const {
  const size_t bound = machine_.faults.send_ring_bytes;
  return bound == 0 ? kRingBytes : std::min(bound, kRingBytes);
}

size_t Process::receive_bound() const {
  const size_t bound = machine_.faults.receive_ring_bytes;
  return bound == 0 ? kRingBytes : std::min(bound, kRingBytes);
}

// The ring is small beside what the core calls plenty: it always waits for room.
size_t Process::send_space() {
  const size_t used = send_->capacity() - send_->want_room();
  return send_bound() > used ? send_bound() - used : 0;
}

uint8_t* Process::send_reserve(size_t bytes) {
  return send_space() >= bytes ? send_->reserve(bytes) : nullptr;
}

}  // namespace tidemark::sim
