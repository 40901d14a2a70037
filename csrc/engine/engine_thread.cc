// The volume's thread. One turn of its loop:
//
//   sleep in the ring (not while there is work) and deliver completions -> posted tasks -> bytes
//   from the peer -> pass on -> disk I/O that is done in place, its completions, and pass on once
//   more -> disk I/O of the ring -> status, if asked -> whether there is more to do at once
//
// To pass on is Volume::poll -> Frontend::turn_end -> one send, or one wake-up, for all bytes to
// the peer. What a step starts is submitted with the next turn's system call, together with the
// wait for it; what a frontend gave the ring goes ahead of the disk's I/O, which can take its time
// in that call.
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <time.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <cstring>
#include <exception>
#include <utility>

#include "core/frame.h"
#include "engine/engine_impl.h"

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#endif

namespace tidemark {
namespace {

constexpr uint32_t kRingEntries = 1024;
constexpr size_t kRandomWords =
    32;  // 256 bytes: getrandom gives so many without ever being interrupted
// Below so much free space in the send ring the core is short of room, and is woken when it grows:
// two of the largest frames and what the core keeps for acknowledgements.
constexpr size_t kSendRoomLow = 2 * (kFramePayloadMax + kFrameHeaderBytes) + (64u << 10);
// Bytes that the volume takes in one turn: more than the largest frame, and few enough that what
// they make others do is bounded.
constexpr size_t kLinkInputMax = 2u << 20;
static_assert(kLinkInputMax >= kFramePayloadMax + kFrameHeaderBytes);
// Beyond so many bytes of its frames that JavaScript has not heard the peer is read no further.
constexpr size_t kUnheardMax = 1u << 20;
// How long an abandoned engine waits for the kernel to give back what is in flight besides disk
// I/O.
constexpr uint64_t kDrainUs = 1'000'000;

void set_up_thread(const EngineOptions& options) {
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, nullptr);
  const std::string name = "tidemark/" + options.name;
  pthread_setname_np(pthread_self(), name.substr(0, 15).c_str());
  // Memory that this thread allocates must not be waited for through the very device it serves.
  // Needs CAP_SYS_RESOURCE; without it ublk would need it most, and ublk needs more rights anyway.
  prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0);
  if (options.affinity.empty()) return;
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  for (const int cpu : options.affinity) {
    if (cpu >= 0 && cpu < CPU_SETSIZE) CPU_SET(cpu, &cpus);
  }
  sched_setaffinity(0, sizeof cpus, &cpus);
}

// Since it began.
uint64_t sleeps_of_this_thread() {
  rusage usage = {};
  getrusage(RUSAGE_THREAD, &usage);
  return static_cast<uint64_t>(usage.ru_nvcsw);
}

}  // namespace

uint64_t monotonic_us() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000 + static_cast<uint64_t>(now.tv_nsec) / 1000;
}

// --- the core's side ---

void Engine::Impl::CoreHost::submit(Io* io) { impl_.disk_->submit(io); }

void Engine::Impl::CoreHost::complete(Request* request) {
  --impl_.requests_out_;
  static_cast<Frontend*>(request->owner)->complete(request);
}

uint8_t* Engine::Impl::CoreHost::buffer_get(size_t bytes) { return impl_.arena_.get(bytes, true); }

void Engine::Impl::CoreHost::buffer_put(uint8_t* buffer, size_t bytes) {
  impl_.arena_.put(buffer, bytes, true);
}

uint64_t Engine::Impl::CoreHost::random_u64() {
  if (random_.empty()) {
    random_.resize(kRandomWords);
    const ssize_t got = getrandom(random_.data(), kRandomWords * sizeof(uint64_t), 0);
    // Generations made of anything less than random numbers would lose data silently.
    if (got != static_cast<ssize_t>(kRandomWords * sizeof(uint64_t))) std::terminate();
  }
  const uint64_t word = random_.back();
  random_.pop_back();
  return word;
}

void Engine::Impl::CoreHost::event(Event event) {
  if (!impl_.callbacks_.event) return;
  impl_.unheard_.fetch_add(peer_event_bytes(event));
  impl_.callbacks_.event(std::move(event));
}

size_t Engine::Impl::CoreHost::send_space() {
  const size_t space = impl_.send_->space();
  return space >= kSendRoomLow ? space : impl_.send_->want_room();
}

uint8_t* Engine::Impl::CoreHost::send_reserve(size_t bytes) {
  uint8_t* place = impl_.send_->reserve(bytes);
  if (place != nullptr) return place;
  return impl_.send_->want_room() >= bytes ? impl_.send_->reserve(bytes) : nullptr;
}

void Engine::Impl::CoreHost::send_commit(size_t bytes) { impl_.send_->commit(bytes); }

// --- the frontends' side ---

Ring& Engine::Impl::FrontendSide::ring() { return impl_.ring_; }

void Engine::Impl::FrontendSide::submit(Request* request) {
  ++impl_.requests_out_;
  impl_.submitted_ = true;
  if (!std::exchange(impl_.took_requests_, true)) ++impl_.counts_.request_batches;
  impl_.volume_->submit(request);
}

uint8_t* Engine::Impl::FrontendSide::buffer_get(size_t bytes) {
  return impl_.arena_.get(bytes, false);
}

void Engine::Impl::FrontendSide::buffer_put(uint8_t* buffer, size_t bytes) {
  impl_.arena_.put(buffer, bytes, false);
}

size_t Engine::Impl::FrontendSide::buffer_bytes_max() const { return impl_.arena_.largest(); }

void Engine::Impl::FrontendSide::post(std::function<void()> task) {
  impl_.mailbox_.post(std::move(task));
}

uint64_t Engine::Impl::FrontendSide::volume_bytes() const { return impl_.volume_bytes_; }
uint32_t Engine::Impl::FrontendSide::block_bytes() const { return impl_.volume_->block_bytes(); }
bool Engine::Impl::FrontendSide::can_discard() const { return impl_.can_discard_; }
bool Engine::Impl::FrontendSide::fast_zeroes() const { return impl_.fast_zeroes_; }
uint64_t Engine::Impl::FrontendSide::now_us() const { return monotonic_us(); }

void Engine::Impl::FrontendSide::frontend_failed(const std::string& why) {
  impl_.core_host_.event({EventKind::kFrontendFailed, why});
}

// --- the thread ---

int Engine::Impl::prepare(bool suspended) {
  Ring::Options ring_options;
  ring_options.entries = kRingEntries;
  if (const int error = ring_.open(ring_options); error != 0) return error;
  const auto area = [](const Backing& device, uint64_t offset, uint64_t bytes, uint32_t block) {
    return Disk::Area{
        device.fd(),       offset, bytes, block, device.memory_align(), device.can_discard(),
        device.in_memory()};
  };
  const Backing& meta_device = metadata_ ? *metadata_ : *backing_;
  disk_ = std::make_unique<Disk>(
      ring_, area(*backing_, superblock_.data_offset, volume_bytes_, backing_->block_bytes()),
      area(meta_device, superblock_.meta_offset, metadata_bytes_, kBlockSize),
      [this](Io* io) { volume_->io_done(io); });
  volume_ = std::make_unique<Volume>(core_host_, std::move(attachment_), backing_->block_bytes(),
                                     metadata_ == nullptr);
  if (suspended) volume_->suspend("the device is being taken over");
  mailbox_.listen(ring_);
  publish_status();
  return 0;
}

void Engine::Impl::thread_main(bool suspended) {
  set_up_thread(options_);
  int error = 0;
  try {
    error = prepare(suspended);
  } catch (const std::exception& exception) {
    error = -ENOMEM;
    prepare_call_ = exception.what();
  }
  {
    std::lock_guard lock(life_mutex_);
    prepared_ = true;
    prepare_error_ = error;
    if (prepare_call_.empty()) prepare_call_ = "io_uring_setup";
    life_changed_.notify_all();
  }
  if (error == 0) loop();
  socket_.reset();
  // In this order: the volume knows requests, which frontends own; both know the disk and the
  // arena.
  volume_.reset();
  frontend_.reset();
  retired_.clear();
  disk_.reset();
  for (const auto& task : mailbox_.close())
    static_cast<void>(task);  // dropped: nothing is left to use
  std::lock_guard lock(life_mutex_);
  thread_ended_ = true;
  life_changed_.notify_all();
}

void Engine::Impl::report_failure(const std::string& what) {
  core_host_.event({EventKind::kIoError, "volume '" + options_.name + "': " + what});
}

void Engine::Impl::loop() {
  while (!ended_) {
    try {
      turn();
    } catch (const std::exception& exception) {
      // Out of memory in the middle of a step: the state machine may be half way, so that only the
      // way of a crash is safe from here.
      report_failure(std::string("the engine ends: ") + exception.what());
      finish(true);
    }
  }
  drain();
}

void Engine::Impl::turn() {
  took_requests_ = false;
  uint64_t timeout_us = 0;
  if (!again_ && mailbox_.sleep() && receive_.unread().size() <= link_left_) {
    alarm_.set(volume_->next_deadline_us());
    timeout_us = UINT64_MAX;
  }
  again_ = false;
  const int delivered = ring_.turn(timeout_us);
  mailbox_.awake();
  if (delivered < 0) {
    report_failure(std::string("io_uring_enter: ") + std::strerror(-delivered));
    return finish(true);
  }
  run_tasks();
  if (ended_) return;
  const bool unseen = link_input();
  bool more = pass_on();
  disk_->run_in_place();
  if (disk_->undelivered()) {
    disk_->deliver();
    if (ended_) return;
    more = pass_on();
  }
  disk_->enter_ring();
  if (status_wanted_.load(std::memory_order_relaxed)) publish_status();
  // Whatever held the peer's bytes back may have ended in any of these steps.
  const bool takes_input = link_left_ > 0 && !link_unheard_ && volume_->takes_input();
  again_ = unseen || more || takes_input || arena_.take_refilled() || disk_->waits_in_place();
}

// What was taken in goes on: to the disk, back to the frontend and to the peer. True: there is more
// to do at once.
bool Engine::Impl::pass_on() {
  submitted_ = false;
  volume_->poll(monotonic_us());
  if (frontend_ != nullptr) frontend_->turn_end();
  for (const auto& frontend : retired_) frontend->turn_end();
  if (!retired_.empty()) release_frontends();
  const bool unread = send_->publish();
  if (socket_ != nullptr && socket_->over()) socket_.reset();
  bool room = false;
  if (socket_ != nullptr) {
    room = socket_->turn();
    // The peer need not wait for JavaScript to hear of it.
    const bool ended = volume_->connection() == Connection::kStandAlone;
    if (ended && socket_->all_sent()) socket_->shut("the link ended");
  } else if (unread && callbacks_.outgoing) {
    callbacks_.outgoing();
  }
  return submitted_ || room;
}

bool Engine::Impl::run_tasks() {
  const auto tasks = mailbox_.take();
  for (const auto& task : tasks) {
    if (ended_) break;
    task();
  }
  return !tasks.empty();
}

// True: it took some, and did not look at all of the rest.
bool Engine::Impl::link_input() {
  const std::span<const uint8_t> bytes = receive_.unread();
  link_left_ = bytes.size();
  link_unheard_ = false;
  if (bytes.empty()) return false;
  if (unheard_.load() > kUnheardMax) {
    waits_heard_.store(true);
    link_unheard_ = unheard_.load() > kUnheardMax;
    if (link_unheard_) return false;
  }
  const size_t shown = std::min(bytes.size(), kLinkInputMax);
  const size_t used = volume_->link_input(bytes.first(shown));
  assert(used <= shown);
  link_left_ -= used;
  if (used > 0 && receive_.consume(used) && callbacks_.room) callbacks_.room();
  return used > 0 && shown < bytes.size();
}

void Engine::Impl::publish_status() {
  status_wanted_.store(false, std::memory_order_relaxed);
  // Taken first: what is told to be of then must not be older.
  const uint64_t now_us = monotonic_us();
  VolumeStatus fresh = volume_->status();
  fresh.now_us = now_us;
  fresh.thread = counts_;
  fresh.thread.wakeups = sleeps_of_this_thread();
  std::lock_guard lock(status_mutex_);
  status_ = std::move(fresh);
  status_ready_.notify_all();
}

void Engine::Impl::set_device(const std::string& device) {
  std::lock_guard lock(status_mutex_);
  device_ = device;
}

// A stopped frontend may still own requests: it goes when none is out any more.
void Engine::Impl::release_frontends() {
  if (requests_out_ == 0) retired_.clear();
}

void Engine::Impl::begin_close(bool abandon) {
  if (ended_) return;
  closing_ = true;
  abandoned_ = abandoned_ || abandon;
  // A frontend on its way up or down works on a thread of its own that knows this engine. It has
  // deadlines; when it is over, this is called again.
  if (starting_ || stopping_) return;
  if (abandoned_) return finish(true);
  if (frontend_ == nullptr) return stop_volume();
  stopping_ = true;
  frontend_->stop(true, [this](const EngineError* error) {
    stopping_ = false;
    if (error != nullptr) report_failure("the frontend was not stopped: " + error->message);
    // Without a clean end the requests may go on; the volume cannot be stopped under them.
    if (error != nullptr || abandoned_) return finish(true);
    retired_.push_back(std::move(frontend_));
    set_device("");
    stop_volume();
  });
}

void Engine::Impl::stop_volume() {
  volume_->stop([this](int error, const std::string& message) {
    if (error != 0) report_failure("not stopped cleanly: " + message);
    finish(false);
  });
  submitted_ = true;  // this turn may have polled the volume already: do not sleep before the next
}

void Engine::Impl::finish(bool abandon) {
  ended_ = true;
  abandoned_ = abandoned_ || abandon;
}

// The memory that the kernel reads and writes goes away after this. Disk I/O is waited for without
// end: the locks must not be given up before it has landed (R12).
void Engine::Impl::drain() {
  bool all = true;
  if (abandoned_) {
    disk_->abandon();
    if (frontend_ != nullptr) {
      frontend_->abandon();
      all = frontend_->ring_clears();
    }
  }
  if (socket_ != nullptr) socket_->shut("the volume was closed");
  mailbox_.unlisten();
  alarm_.cancel();
  const uint64_t deadline = monotonic_us() + kDrainUs;
  const auto waiting = [&] {
    if (disk_->in_flight() > 0) return true;
    // The kernel moves bytes in memory that is unmapped afterwards.
    const bool moves = socket_ != nullptr && socket_->busy();
    const bool waits = all ? ring_.in_flight() > 0 : mailbox_.reading() || moves;
    return waits && monotonic_us() < deadline;
  };
  disk_->deliver();  // a turn may have ended before it
  while (waiting()) {
    disk_->run_in_place();
    disk_->deliver();
    disk_->enter_ring();
    if (ring_.turn(disk_->waits_in_place() ? 0 : kDrainUs / 10) < 0) break;
  }
}

}  // namespace tidemark
