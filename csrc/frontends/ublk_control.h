// Commands to the ublk driver, over a ring of its own with 128-byte entries. Blocking, with
// deadlines; for one thread, which is not the volume's: the driver holds some commands back until
// the volume's thread has served I/O.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/ring.h"
#include "vendor/linux/ublk_cmd.h"

namespace tidemark {

inline constexpr const char* kUblkControlPath = "/dev/ublk-control";

using UblkClock = std::chrono::steady_clock;

class UblkControl {
 public:
  using GiveUp = std::function<bool()>;

  // Commands end early, with -ECANCELED, once `cancelled` is set.
  explicit UblkControl(const std::atomic<bool>* cancelled = nullptr) : cancelled_(cancelled) {}
  ~UblkControl();
  UblkControl(const UblkControl&) = delete;
  UblkControl& operator=(const UblkControl&) = delete;

  // 0 or -errno; `failed_call` says what refused. Harmless when open already.
  int open(const char** failed_call);

  // Each is 0 or -errno; -ETIMEDOUT when the deadline passed. The command may then still be going
  // on in the kernel: busy().
  int get_features(uint64_t* features, UblkClock::time_point deadline);
  int add(ublksrv_ctrl_dev_info* info, UblkClock::time_point deadline);  // writes back what it is
  int remove(uint32_t device_id, bool wait, UblkClock::time_point deadline);
  int set_params(uint32_t device_id, const ublk_params& params, UblkClock::time_point deadline);
  int get_params(uint32_t device_id, ublk_params* params, UblkClock::time_point deadline);
  int get_info(uint32_t device_id, ublksrv_ctrl_dev_info* info, UblkClock::time_point deadline);
  // These wait for the volume's thread: until every tag was fetched, for I/O, for requests that it
  // has. `give_up` is asked now and then, and ends the wait with -ETIMEDOUT.
  int start(uint32_t device_id, UblkClock::time_point deadline, const GiveUp& give_up);
  int end_recovery(uint32_t device_id, UblkClock::time_point deadline, const GiveUp& give_up);
  int stop(uint32_t device_id, UblkClock::time_point deadline, const GiveUp& give_up = {});
  int start_recovery(uint32_t device_id, UblkClock::time_point deadline);

  // The same for the block device; open_block returns the descriptor.
  int open_block(const std::string& path, int flags, UblkClock::time_point deadline,
                 const GiveUp& give_up = {});
  int sync_block(int fd, UblkClock::time_point deadline, const GiveUp& give_up = {});
  // The whole filesystem that this directory is in. On a thread of its own, as io_uring has no such
  // operation; one that is given up goes on until the kernel answers it.
  int sync_filesystem(const std::string& path, UblkClock::time_point deadline,
                      const GiveUp& give_up = {});

  // Something that timed out has not come back. The thread's exit would wait for it.
  bool busy() const;

 private:
  struct Call;
  int command(uint32_t operation, uint32_t device_id, const void* in, void* out, uint16_t bytes,
              uint64_t data, UblkClock::time_point deadline, const GiveUp& give_up = {});
  int run(const std::shared_ptr<Call>& call, const std::function<void(io_uring_sqe*)>& fill,
          UblkClock::time_point deadline, const GiveUp& give_up = {});
  void forget_finished();

  const std::atomic<bool>* cancelled_;
  Ring ring_;
  int fd_ = -1;
  std::vector<std::shared_ptr<Call>> late_;  // timed out, still in the kernel
};

}  // namespace tidemark
