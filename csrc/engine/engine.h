// The engine of one volume: a native thread that owns the ring, the backing files, the frontends
// and the core Volume. It is the core's Host.
//
// Other threads talk to it in three ways: call() runs a task on the thread; feed()/outgoing() move
// link bytes through two rings, each with one producer and one consumer; status() copies a
// snapshot. Nothing here knows of JavaScript: the binding (csrc/addon) passes callbacks in.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/attach.h"
#include "core/volume.h"
#include "engine/backing.h"
#include "engine/error.h"
#include "frontends/nbd_options.h"
#include "frontends/ublk_options.h"

namespace tidemark {

// The clock of a running engine's VolumeStatus::now_us.
uint64_t monotonic_us();

struct EngineOptions {
  std::string name;  // volume name, for logs and the NBD export
  std::string backing_path;
  std::string metadata_path;  // empty: internal, found on the backing disk
  Placement placement = Placement::kEnd;
  uint64_t metadata_offset = 0;      // kOffset only
  std::vector<int> affinity;         // CPUs of the volume's thread; empty: all
  uint64_t lock_timeout_ms = 15000;  // how long to wait for a predecessor's locks (R12)
  size_t arena_bytes = 64u << 20;
  size_t send_ring_bytes = 8u << 20;     // power of two
  size_t receive_ring_bytes = 8u << 20;  // power of two
};

struct EngineCallbacks {
  // Called on the volume's thread; must only queue and wake.
  std::function<void(Event)> event;
  std::function<void()> outgoing;  // the send ring went from empty to not empty
  std::function<void()> room;  // the receive ring has room again after feed() took less than all
};

struct AttachReport {
  uint64_t volume_bytes = 0;
  uint32_t block_bytes = 0;
  bool direct_io = false;
  bool crashed = false;
  bool crashed_primary = false;
  uint64_t replayed_extents = 0;
  uint64_t replayed_chunks = 0;
  std::vector<std::string> warnings;  // including "O_DIRECT refused by ..., buffered I/O is used"
};

struct RingMemory {
  std::shared_ptr<const void> owner;
  const uint8_t* base = nullptr;
  size_t bytes = 0;
};

class Engine {
 public:
  // Open, lock, attach, start the thread; blocking. Suspended from the start when asked to
  // (recovery, R18).
  static std::unique_ptr<Engine> open(const EngineOptions& options, EngineCallbacks callbacks,
                                      bool suspended, AttachReport* report, EngineError* error);
  ~Engine();  // close(true) if it was not closed: as a crash, and always safe

  // Run on the volume's thread; returns at once. The Volume and the frontends may be used inside.
  void call(std::function<void(Volume&)> task);

  // Frontends, one at a time; `done` on the volume's thread. The volume must be primary.
  using FrontendDone = std::function<void(const EngineError* error, const std::string& device)>;
  void start_nbd(const NbdOptions& options, FrontendDone done);
  void start_ublk(const UblkOptions& options,
                  FrontendDone done);  // options.recover: take over a quiesced device
  // Refused while in use unless forced.
  void stop_frontend(bool force, FrontendDone done);

  // Copied at the end of a turn at most 20 ms ago, or with `fresh` at one that ended later than
  // this call; the last one when the thread does not answer within 20 ms, which age_us tells.
  VolumeStatus status(bool fresh = false) const;
  std::string device() const;

  // --- link bytes, called from one other thread ---
  // Either through feed(), outgoing() and consumed(), or, from take_socket() until its end, between
  // the volume's thread and the socket itself.
  // Copies as much as fits, returns how much; `room` is called later when it was less than all.
  size_t feed(std::span<const uint8_t> bytes);
  // The contiguous unread part of the send ring (may be empty), valid until consumed().
  std::span<const uint8_t> outgoing();
  void consumed(size_t bytes);
  // The send ring's memory, both mappings in a row; it stays mapped while `owner` is held, also
  // after close() and the Engine's end, because JavaScript may keep views of it.
  RingMemory send_memory() const;
  // From here on the volume's thread moves the link's bytes through (a duplicate of) this socket;
  // `ended` is called there once, with why: the peer closed it, an error, drop_socket(). 0 or
  // -errno.
  using SocketEnded = std::function<void(const std::string& why)>;
  int take_socket(int fd, SocketEnded ended);
  // Ends what take_socket() began, if that goes on.
  void drop_socket();
  // What an event weighs that is a frame of the peer's, 0 for others, and how much of that was
  // handled by whoever hears them: a peer that says more than is heard is read no further
  // meanwhile.
  static size_t peer_event_bytes(const Event& event);
  void heard(size_t bytes);
  // A new link begins: both rings are empty afterwards. Only between kLinkIdle and link_prepare.
  void reset_link_bytes();

  // Stop frontends (forced), stop the volume cleanly (unless `abandon`), end the thread, close the
  // files. Blocking; idempotent.
  void close(bool abandon);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
  Engine() = default;
};

}  // namespace tidemark
