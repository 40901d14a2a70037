// The ublk frontend: a volume as /dev/ublkbN. See docs/UBLK.md.
//
// The queue is on the volume's ring and thread (ublk_queue); the device as a whole is handled by a
// control thread of its own (ublk_setup on ublk_thread), as the driver keeps some commands waiting
// until the volume's thread has served I/O.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "engine/error.h"
#include "engine/frontend.h"
#include "frontends/ublk_options.h"
#include "frontends/ublk_setup.h"

namespace tidemark {

class UblkFrontend final : public Frontend {
 public:
  using StartDone = std::function<void(std::unique_ptr<UblkFrontend>, const EngineError*)>;
  using StopDone = std::function<void(const EngineError*)>;

  // On the volume's thread. Makes the device, or takes it over (options.recover); `done` is called
  // there too, once, with the frontend or the error. A start that fails leaves no device; a
  // take-over that fails leaves it quiesced, if it was found so. `host` outlives `done` and the
  // frontend, and serves requests and posted tasks all the time: the kernel reads partitions before
  // the start is over.
  static void start(FrontendHost& host, const UblkOptions& options, StartDone done,
                    UblkHooks hooks = {});

  // On the volume's thread, not while another stop is going on. Refused (UBLK_BUSY) while the
  // device is mounted or open, unless forced; after success it is deleted and the frontend can only
  // be destroyed; after an error it is as before, or (UBLK_TIMEOUT) can be stopped again.
  void stop(bool force, StopDone done) override;

  // On the volume's thread. Leaves the device to a successor, without a stop; requests that are
  // with the volume go to that one.
  void abandon() override;

  // On the volume's thread. A device that was not stopped is left to a successor, who can have it
  // once this thread has ended and the ring is closed, in that order: a request that the driver
  // (6.12) hands to a living thread after its ring was closed is lost, and the device hangs for
  // good.
  ~UblkFrontend() override;

  void complete(Request* request) override;
  void turn_end() override {}
  std::string device() const override;
  bool in_use()
      const override;  // mounts and holders; processes that have it open: stop() finds them

  uint32_t device_id() const { return device_.id; }
  bool recoverable() const { return device_.recoverable; }

 private:
  UblkFrontend(FrontendHost& host, const UblkOptions& options, UblkHooks hooks);
  UblkSetup setup(UblkControl& control);
  void queue_ended();
  void tag_failed(const std::string& why);
  void report(std::string why);
  std::string queue_failure();

  FrontendHost& host_;
  const UblkOptions options_;
  const UblkShape shape_;
  const UblkHooks hooks_;
  std::function<std::string()> failure_reader_;
  std::mutex failure_mutex_;
  std::string failure_;  // why a tag ended; empty: none did
  UblkDevice device_;
  bool serving_ = false;  // started and not being stopped
  bool reported_ = false;
  bool orphaned_ = false;  // its start failed; it ends with its last request
  std::shared_ptr<UblkGate> gate_;
  UblkQueue queue_;
  UblkThread thread_;  // last: its scripts use all the above
};

}  // namespace tidemark
