// What the core asks of the world around it. Production: the engine (csrc/engine) with io_uring;
// tests: a simulated disk, network and clock.
//
// The core is one state machine per volume, used from one thread. It does no I/O, reads no clock
// and takes no randomness of its own: events go in through Volume's methods, actions come out
// through Host. No call into Host may call back into the Volume.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "core/types.h"

namespace tidemark {

enum class IoTarget : uint8_t { kData, kMeta };
enum class IoKind : uint8_t { kRead, kWrite, kFlush, kDiscard, kWriteZeroes };

inline constexpr uint8_t kIoFua = 1;      // durable when done (RWF_DSYNC)
inline constexpr uint8_t kIoNoUnmap = 2;  // kWriteZeroes: must not punch a hole

// One I/O on the backing disk (offset counts from volume byte 0) or on the metadata area (offset
// counts from its start). Offset, length and buffer are aligned to the backing's logical block
// (kMeta: to 4 KiB). The owner keeps it alive until `done`.
struct Io {
  IoTarget target = IoTarget::kData;
  IoKind kind = IoKind::kRead;
  uint8_t flags = 0;
  uint64_t offset = 0;
  uint64_t length = 0;        // 0 for flush
  uint8_t* buffer = nullptr;  // reads and writes
  int32_t result =
      0;  // 0, or -errno; a short transfer is the host's to finish or to turn into -EIO
  void (*done)(void* context, Io* io) = nullptr;
  void* context = nullptr;
  uint64_t host_state[4] = {};  // the host's own while the I/O is out
};

inline Io flush_of(IoTarget target, void* context, void (*done)(void* context, Io* io)) {
  Io io;
  io.target = target;
  io.kind = IoKind::kFlush;
  io.done = done;
  io.context = context;
  return io;
}

// A request of a frontend. The frontend owns it, fills the first part, hands it to Volume::submit
// and gets it back through Host::complete, exactly once (also after errors). It may be used again
// then.
struct Request {
  Op op = Op::kRead;
  uint8_t flags = 0;    // kRequest*
  uint64_t offset = 0;  // bytes; any alignment, the core reads, modifies and writes where it must
  uint64_t length = 0;  // bytes; 0 only for flush
  uint8_t* buffer =
      nullptr;            // reads and writes; aligned to 4 KiB for best speed, any alignment works
  int32_t result = 0;     // 0 or -errno
  void* owner = nullptr;  // the frontend's
  void* core_state = nullptr;  // the core's while the request is out; null otherwise
};

// What the shell is told. `text` says why, for people; `code` is for programs.
enum class EventKind : uint8_t {
  kLinkDown,   // the link ended (text: why); close the socket. Bytes already in the send ring are
               // void.
  kLinkIdle,   // after kLinkDown: every write of that link has completed; a new handshake may begin
               // (R16)
  kLinkState,  // connection or resync state changed
  kControl,    // a kControl frame of the peer arrived (text: its JSON payload)
  kDiskState,  // the local disk state changed
  kRole,       // the role changed
  kSyncStarted,
  kSyncFinished,
  kIoSuspended,     // requests wait (text: why) ...
  kIoResumed,       // ... no longer
  kIoError,         // a disk or metadata error (text: what, errno)
  kFrontendFailed,  // from the engine: a frontend died by itself (text: why)
};
struct Event {
  EventKind kind{};
  std::string text;
};

class Host {
 public:
  virtual ~Host() = default;

  // Start an I/O. Its `done` is called later through Volume::io_done, never from inside submit().
  virtual void submit(Io* io) = 0;
  // Hand a request back to its frontend.
  virtual void complete(Request* request) = 0;
  // Buffers aligned to 4 KiB. nullptr: none now; the core waits, and is given the link's bytes and
  // polled again (Volume::link_input, Volume::poll) when one came back.
  virtual uint8_t* buffer_get(size_t bytes) = 0;
  virtual void buffer_put(uint8_t* buffer, size_t bytes) = 0;
  virtual uint64_t random_u64() = 0;
  virtual void event(Event event) = 0;
  // Bytes to the peer: a contiguous place for `bytes`, or nullptr when the ring has no room now;
  // then send_commit what was written. Volume::poll is called again when room came back.
  virtual size_t send_space() = 0;
  virtual uint8_t* send_reserve(size_t bytes) = 0;
  virtual void send_commit(size_t bytes) = 0;
};

// Blocking access to the metadata area for create and attach, before the volume runs. Offsets count
// from the area's start.
class MetadataIo {
 public:
  virtual ~MetadataIo() = default;
  // 0 or -errno; whole blocks.
  virtual int read(uint64_t offset, void* buffer, size_t bytes) = 0;
  virtual int write(uint64_t offset, const void* buffer, size_t bytes) = 0;
  virtual int flush() = 0;
  // The backing disk, where the metadata lie on another device; otherwise flush() is that, too.
  virtual int flush_data() { return 0; }
};

}  // namespace tidemark
