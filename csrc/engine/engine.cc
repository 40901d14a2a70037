#include "engine/engine.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cassert>
#include <chrono>
#include <cstring>
#include <string_view>
#include <utility>

#include "core/crc32c.h"
#include "engine/engine_impl.h"
#include "engine/metadata_file.h"
#include "engine/metadata_place.h"
#include "frontends/nbd.h"
#include "frontends/ublk.h"

namespace tidemark {
namespace {

constexpr uint64_t kStatusAgeUs = 20'000;
// The core keeps room for acknowledgements in the send ring, and a whole frame must fit beside it;
// a frame that did not arrive completely must leave room for its rest in the receive ring.
constexpr size_t kLinkRingBytesMin = 4u << 20;
// An event without its text, in a queue.
constexpr size_t kEventBytes = 128;

std::string check_options(const EngineOptions& options) {
  const auto bad_ring = [](size_t bytes) {
    return bytes < kLinkRingBytesMin || (bytes & (bytes - 1)) != 0;
  };
  if (bad_ring(options.send_ring_bytes) || bad_ring(options.receive_ring_bytes)) {
    return "the link rings have " + std::to_string(options.send_ring_bytes) + " and " +
           std::to_string(options.receive_ring_bytes) + " bytes: out of range (" +
           std::to_string(kLinkRingBytesMin) + "..) or not a power of 2";
  }
  if (options.arena_bytes < Arena::kBytesMin) {
    return "the arena has " + std::to_string(options.arena_bytes) + " bytes: out of range (" +
           std::to_string(Arena::kBytesMin) + "..)";
  }
  if (options.metadata_path.empty() == (options.placement == Placement::kExternal)) {
    return "external metadata needs a path, and only external metadata has one";
  }
  return "";
}

bool same_file(const Backing& backing, const std::string& path) {
  struct stat a = {};
  struct stat b = {};
  return fstat(backing.fd(), &a) == 0 && stat(path.c_str(), &b) == 0 && a.st_dev == b.st_dev &&
         a.st_ino == b.st_ino;
}

// What to do when this machine has no io_uring for us.
const char* ring_advice(std::string_view call, int number) {
  if (call != "io_uring_setup") return "";
  if (number == -EPERM || number == -EACCES) {
    return "; io_uring is forbidden here: see sysctl kernel.io_uring_disabled, or the container's "
           "seccomp profile";
  }
  return number == -ENOSYS ? "; io_uring of Linux 5.11 or newer is needed" : "";
}

void warn_buffered(const Backing& backing, std::vector<std::string>* warnings) {
  if (backing.direct()) return;
  warnings->push_back("'" + backing.path() + "': " + backing.direct_refused() +
                      "; buffered I/O is used");
}

}  // namespace

Engine::Impl::Impl(EngineOptions options, EngineCallbacks callbacks)
    : options_(std::move(options)), callbacks_(std::move(callbacks)) {}

Engine::Impl::~Impl() { close(true); }

bool Engine::Impl::open(bool suspended, AttachReport* report, EngineError* error) {
  *report = {};
  if (std::string text = check_options(options_); !text.empty()) {
    *error = {"OPTIONS", 0, "", text};
    return false;
  }
  // Both locks before the first byte of metadata is read (R12).
  backing_ = Backing::open(options_.backing_path, options_.lock_timeout_ms, error);
  if (backing_ == nullptr) return false;
  warn_buffered(*backing_, &report->warnings);
  if (!options_.metadata_path.empty()) {
    if (same_file(*backing_, options_.metadata_path)) {
      *error = {"OPTIONS", 0, "", "'" + options_.metadata_path + "' is the backing disk itself"};
      return false;
    }
    metadata_ = Backing::open(options_.metadata_path, options_.lock_timeout_ms, error);
    if (metadata_ == nullptr) return false;
    warn_buffered(*metadata_, &report->warnings);
  }
  const Backing& meta_device = metadata_ ? *metadata_ : *backing_;
  MetadataPlace place;
  if (!find_metadata(meta_device, options_.placement, options_.metadata_offset, &place, error)) {
    return false;
  }
  MetadataFile file(meta_device, place.offset, place.bytes);
  if (metadata_ != nullptr) file.belongs_to(*backing_);
  const Expectation expected{backing_->device_bytes(), backing_->block_bytes()};
  if (auto wrong = attach_metadata(file, place.bytes, expected, &attachment_)) {
    *error = {wrong->code, 0, "", "'" + meta_device.path() + "': " + wrong->message};
    return false;
  }
  superblock_ = attachment_->superblock;
  metadata_bytes_ = attachment_->layout.bytes();
  volume_bytes_ = superblock_.geometry.volume_bytes;
  can_discard_ = backing_->can_discard();
  fast_zeroes_ = backing_->fast_zeroes();

  report->volume_bytes = volume_bytes_;
  report->block_bytes = backing_->block_bytes();
  report->direct_io = backing_->direct();
  report->crashed = attachment_->crashed;
  report->crashed_primary =
      attachment_->crashed && (superblock_.flags & (kNodePrimary | kNodeCrashedPrimary)) != 0;
  report->replayed_extents = attachment_->replayed_extents;
  report->replayed_chunks = attachment_->replayed_chunks;
  for (auto* list : {&place.warnings, &attachment_->warnings}) {
    report->warnings.insert(report->warnings.end(), list->begin(), list->end());
  }

  const auto opened = [&](const char* what, int number) {
    if (number == 0) return true;
    *error = {"RING", -number, what,
              std::string("cannot start the engine of volume '") + options_.name + "': " + what +
                  ": " + std::strerror(-number) + ring_advice(what, number)};
    return false;
  };
  if (!opened("eventfd", mailbox_.open()) || !opened("arena", arena_.open(options_.arena_bytes)) ||
      !opened("send ring", send_->open(options_.send_ring_bytes)) ||
      !opened("receive ring", receive_.open(options_.receive_ring_bytes))) {
    return false;
  }
  thread_ = std::thread([this, suspended] { thread_main(suspended); });
  std::unique_lock lock(life_mutex_);
  life_changed_.wait(lock, [this] { return prepared_; });
  if (prepare_error_ == 0) return true;
  lock.unlock();
  close(true);
  return opened(prepare_call_.c_str(), prepare_error_);
}

void Engine::Impl::close(bool abandon) {
  if (!thread_.joinable() && !joined_) {
    joined_ = true;  // never started
    return;
  }
  mailbox_.post([this, abandon] { begin_close(abandon); });
  std::unique_lock lock(life_mutex_);
  life_changed_.wait(lock, [this] { return thread_ended_; });
  if (joined_) return;
  joined_ = true;
  thread_.join();
  // Not before the thread has ended: what ublk hands to a living thread whose ring is closed is
  // lost, and its device hangs (Linux 6.12).
  ring_.close();
  // The files last: the locks are held until no I/O can be under way any more (R12).
  metadata_.reset();
  backing_.reset();
}

void Engine::Impl::post_start(const char* kind, bool needs_primary, Starter starter,
                              FrontendDone done) {
  const auto task = [this, kind, needs_primary, starter = std::move(starter), done] {
    const auto refuse = [&](const char* code, const std::string& why) {
      const EngineError error{code, 0, "",
                              std::string("cannot start the ") + kind + " frontend of volume '" +
                                  options_.name + "': " + why};
      done(&error, "");
    };
    if (closing_) return refuse("CLOSED", "the volume is being stopped");
    if (frontend_ != nullptr || starting_) {
      return refuse("FRONTEND_EXISTS", frontend_
                                           ? "it is served on " + frontend_->device() + " already"
                                           : "another start is under way");
    }
    if (needs_primary && volume_->status().role != Role::kPrimary) {
      return refuse("NOT_PRIMARY", "this node is secondary; make it primary first");
    }
    starting_ = true;
    starter(done);
  };
  if (mailbox_.post(task)) return;
  const EngineError error{"CLOSED", 0, "", "the volume '" + options_.name + "' is closed"};
  done(&error, "");
}

void Engine::Impl::stop_frontend(bool force, FrontendDone done) {
  const auto task = [this, force, done] {
    const auto refuse = [&](const char* code, const std::string& why) {
      const EngineError error{code, 0, "", "volume '" + options_.name + "': " + why};
      done(&error, "");
    };
    if (starting_ || stopping_ || closing_) {
      return refuse("FRONTEND_CHANGING", "its frontend is being started or stopped");
    }
    if (frontend_ == nullptr) return refuse("NO_FRONTEND", "no frontend is running");
    stopping_ = true;
    frontend_->stop(force, [this, done](const EngineError* error) {
      stopping_ = false;
      const std::string device = frontend_->device();
      if (error == nullptr) {
        retired_.push_back(std::move(frontend_));
        set_device("");
        // Their submitter was told that they failed: done later they would change what is nobody's.
        volume_->drop_suspended();
      }
      done(error, device);
      if (closing_) begin_close(false);
    });
  };
  if (mailbox_.post(task)) return;
  const EngineError error{"CLOSED", 0, "", "the volume '" + options_.name + "' is closed"};
  done(&error, "");
}

void Engine::Impl::reset_link_bytes() {
  // The rings' other ends belong to the thread: it gives up what it produced and did not use, and
  // waits in no state of its own meanwhile; the caller then drops what is left of its own ends.
  auto done = std::make_shared<std::pair<std::mutex, std::condition_variable>>();
  auto finished = std::make_shared<bool>(false);
  const bool posted = mailbox_.post([this, done, finished] {
    receive_.consume(receive_.unread().size());
    link_left_ = 0;
    send_->publish();
    std::lock_guard lock(done->first);
    *finished = true;
    done->second.notify_all();
  });
  if (posted) {
    std::unique_lock lock(done->first);
    done->second.wait(lock, [&] { return *finished; });
  } else {
    receive_.consume(receive_.unread().size());  // the thread is gone
  }
  send_->consume(send_->unread().size());
  send_->unread_or_sleep();
}

int Engine::Impl::take_socket(int fd, SocketEnded ended) {
  // Whoever gave it closes its own whenever that likes.
  const int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (copy < 0) return -errno;
  // A task that is dropped, because the volume ends, closes it.
  struct Owned {
    int fd;
    ~Owned() {
      if (fd >= 0) ::close(fd);
    }
  };
  const auto owned = std::make_shared<Owned>(copy);
  const auto take = [this, owned, ended] {
    if (socket_ != nullptr && !socket_->over()) {
      ended("the earlier socket is still in use");
      return;
    }
    // The volume need not wait for JavaScript to hear of it.
    const auto tell = [this, ended](const std::string& why) {
      if (!ended_) volume_->link_stop(why);
      ended(why);
    };
    socket_ = std::make_unique<LinkSocket>(ring_, std::exchange(owned->fd, -1), *send_, receive_,
                                           counts_, tell);
  };
  return mailbox_.post(take) ? 0 : -ESHUTDOWN;
}

void Engine::Impl::drop_socket() {
  mailbox_.post([this] {
    if (socket_ != nullptr) socket_->shut("the connection was closed");
  });
}

void Engine::Impl::heard(size_t bytes) {
  unheard_.fetch_sub(bytes);
  if (waits_heard_.exchange(false)) mailbox_.ring();
}

VolumeStatus Engine::Impl::status(bool fresh) {
  const uint64_t since_us = monotonic_us() - (fresh ? 0 : kStatusAgeUs);
  std::unique_lock lock(status_mutex_);
  if (status_.now_us < since_us) {
    status_wanted_.store(true);
    mailbox_.ring();
    // A thread that is stuck must not hold up who asks: then the old one is the answer.
    status_ready_.wait_for(lock, std::chrono::microseconds(kStatusAgeUs),
                           [&] { return status_.now_us >= since_us; });
  }
  VolumeStatus status = status_;
  if (status.now_us < since_us) status.age_us = monotonic_us() - status.now_us;
  return status;
}

// --- the public face ---

std::unique_ptr<Engine> Engine::open(const EngineOptions& options, EngineCallbacks callbacks,
                                     bool suspended, AttachReport* report, EngineError* error) {
  std::unique_ptr<Engine> engine(new Engine);
  engine->impl_ = std::make_unique<Impl>(options, std::move(callbacks));
  if (!engine->impl_->open(suspended, report, error)) return nullptr;
  return engine;
}

Engine::~Engine() = default;

void Engine::call(std::function<void(Volume&)> task) {
  impl_->mailbox_.post([impl = impl_.get(), task = std::move(task)] { task(*impl->volume_); });
}

void Engine::start_nbd(const NbdOptions& options, FrontendDone done) {
  Impl* impl = impl_.get();
  const auto start = [impl, options](const FrontendDone& finished) {
    EngineError error;
    std::unique_ptr<NbdFrontend> server = NbdFrontend::start(impl->frontend_side_, options, &error);
    impl->starting_ = false;
    if (server == nullptr) return finished(&error, "");
    impl->frontend_ = std::move(server);
    impl->set_device(impl->frontend_->device());
    finished(nullptr, impl->frontend_->device());
  };
  impl->post_start("NBD", true, start, std::move(done));
}

void Engine::start_ublk(const UblkOptions& wanted, FrontendDone done) {
  Impl* impl = impl_.get();
  UblkOptions options = wanted;
  if (options.volume_tag == 0) {
    const Uuid& identity = impl->superblock_.node_id;
    options.volume_tag = crc32c(0, identity.bytes, sizeof identity.bytes);
  }
  const auto start = [impl, options](const FrontendDone& finished) {
    UblkFrontend::start(
        impl->frontend_side_, options,
        [impl, finished](std::unique_ptr<UblkFrontend> frontend, const EngineError* error) {
          impl->starting_ = false;
          if (frontend == nullptr) {
            finished(error, "");
          } else {
            impl->frontend_ = std::move(frontend);
            impl->set_device(impl->frontend_->device());
            finished(nullptr, impl->frontend_->device());
          }
          if (impl->closing_) impl->begin_close(false);
        });
  };
  // A device that is taken over has requests waiting, whatever became of this node's role: the
  // volume lets them wait until it is known (R18).
  impl->post_start("ublk", !options.recover, start, std::move(done));
}

void Engine::stop_frontend(bool force, FrontendDone done) {
  impl_->stop_frontend(force, std::move(done));
}

VolumeStatus Engine::status(bool fresh) const { return impl_->status(fresh); }

std::string Engine::device() const {
  std::lock_guard lock(impl_->status_mutex_);
  return impl_->device_;
}

size_t Engine::feed(std::span<const uint8_t> bytes) {
  ByteRing& ring = impl_->receive_;
  size_t used = 0;
  size_t room = ring.space();
  while (used < bytes.size() && room > 0) {
    const size_t piece = std::min(bytes.size() - used, room);
    std::memcpy(ring.reserve(piece), bytes.data() + used, piece);
    ring.commit(piece);
    used += piece;
    ring.publish();
    room = used < bytes.size() ? ring.want_room() : 0;
  }
  if (used == 0 && !bytes.empty() && ring.want_room() > 0) return feed(bytes);
  if (used > 0) impl_->mailbox_.ring();
  return used;
}

std::span<const uint8_t> Engine::outgoing() { return impl_->send_->unread_or_sleep(); }

void Engine::consumed(size_t bytes) {
  if (impl_->send_->consume(bytes)) impl_->mailbox_.ring();
}

RingMemory Engine::send_memory() const {
  const auto& ring = impl_->send_;
  return {ring, ring->memory(), ring->capacity() * 2};
}

int Engine::take_socket(int fd, SocketEnded ended) {
  return impl_->take_socket(fd, std::move(ended));
}

void Engine::drop_socket() { impl_->drop_socket(); }

size_t Engine::peer_event_bytes(const Event& event) {
  const bool is_peers = event.kind == EventKind::kControl || event.kind == EventKind::kLinkState;
  return is_peers ? kEventBytes + event.text.size() : 0;
}

void Engine::heard(size_t bytes) { impl_->heard(bytes); }

void Engine::reset_link_bytes() { impl_->reset_link_bytes(); }

void Engine::close(bool abandon) { impl_->close(abandon); }

}  // namespace tidemark
