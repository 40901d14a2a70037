// The NBD frontend: a server whose sockets live in the volume's ring.
#pragma once

#include <linux/time_types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/frontend.h"
#include "engine/ring.h"
#include "frontends/nbd_connection.h"
#include "frontends/nbd_options.h"
#include "frontends/nbd_socket.h"

namespace tidemark {

class NbdFrontend final : public Frontend {
 public:
  // On the volume's thread, like everything here. nullptr: error filled (NBD_ADDRESS, NBD_OPTIONS).
  static std::unique_ptr<NbdFrontend> start(FrontendHost& host, const NbdOptions& options,
                                            EngineError* error);
  ~NbdFrontend() override;

  void complete(Request* request) override;
  void turn_end() override;
  std::string device() const override { return socket_.address(); }
  bool in_use() const override;
  // Refused (NBD_BUSY) with clients unless forced; then what is under way is finished and answered
  // for a second at most, and the clients are cut off.
  void stop(bool force, std::function<void(const EngineError*)> done) override;
  void abandon() override;
  bool ring_clears() const override { return true; }

 private:
  struct Operation : Completion {
    NbdFrontend* server = nullptr;
    bool busy = false;
    bool cancelled = false;
  };

  NbdFrontend(FrontendHost& host, const NbdOptions& options);
  void accept();
  void accepted(int32_t result);
  void arm_timer();
  void tick();
  void cancel(Operation& operation);
  void share();
  void settle();
  size_t open_connections() const;

  FrontendHost& host_;
  const NbdOptions options_;
  NbdExport export_;
  NbdConnection::Limits limits_;
  NbdSocket socket_;
  std::vector<std::unique_ptr<NbdConnection>> connections_;
  Operation accept_;
  Operation timer_;
  __kernel_timespec tick_ = {};
  bool stopping_ = false;
  bool paused_ = false;  // accepting failed for want of something; the next tick tries again
  uint64_t cut_us_ = 0;
  std::function<void(const EngineError*)> stopped_;
};

}  // namespace tidemark
