// What a frontend (ublk, NBD) is to the engine, and what it may use. All of it runs on the volume's
// thread.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "core/host.h"
#include "engine/error.h"
#include "engine/ring.h"

namespace tidemark {

// The engine as frontends see it.
class FrontendHost {
 public:
  virtual ~FrontendHost() = default;
  virtual Ring& ring() = 0;                   // the volume's ring (64-byte entries)
  virtual void submit(Request* request) = 0;  // to the volume; request->owner is the Frontend
  virtual uint8_t* buffer_get(
      size_t bytes) = 0;  // 4 KiB aligned; nullptr when the arena is used up
  virtual void buffer_put(uint8_t* buffer, size_t bytes) = 0;
  // A larger one is never given.
  virtual size_t buffer_bytes_max() const { return 32u << 20; }
  virtual void post(
      std::function<void()> task) = 0;  // from any thread: run it on the volume's thread
  virtual uint64_t volume_bytes() const = 0;
  virtual uint32_t block_bytes() const = 0;  // logical block of the backing: 512 or 4096
  virtual bool can_discard() const = 0;      // discards leave zeroes on this backing (R6)
  virtual bool fast_zeroes() const = 0;      // write-zeroes without writing data
  virtual uint64_t now_us() const = 0;
  virtual void frontend_failed(const std::string& why) = 0;  // the frontend died by itself
};

class Frontend {
 public:
  virtual ~Frontend() = default;
  // Request::owner points here; called exactly once per submitted request.
  virtual void complete(Request* request) = 0;
  // In each turn of the loop after completions were delivered, once or twice (send what is
  // batched). Must be cheap when there is nothing to do.
  virtual void turn_end() = 0;
  virtual std::string device() const = 0;  // "/dev/ublkb0", or the socket's path
  virtual bool in_use() const = 0;         // mounted, open, or clients connected
  // End it: refused (the frontend goes on) while in use unless forced. After a `done` without error
  // nothing is submitted any more; requests may still be out, and the engine deletes the frontend
  // when the last came back. Destroying it without stop() leaves what outlives a process as a crash
  // would (a quiesced ublk device).
  virtual void stop(bool force, std::function<void(const EngineError*)> done) = 0;
  // The engine ends without a stop: let go of what a crash would let go of; nothing may be
  // submitted any more.
  virtual void abandon() {}
  // Whether the ring gives back by itself what it holds for an abandoned frontend, so that it can
  // be waited for.
  virtual bool ring_clears() const { return false; }
};

}  // namespace tidemark
