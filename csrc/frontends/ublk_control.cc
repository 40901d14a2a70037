#include "frontends/ublk_control.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <mutex>
#include <thread>

namespace tidemark {
namespace {

constexpr auto kSlice = std::chrono::milliseconds(50);  // how soon a cancellation is seen
constexpr auto kPoll = std::chrono::milliseconds(5);
constexpr auto kRetreat = std::chrono::milliseconds(500);  // for a cancelled call to come back

}  // namespace

// One operation in the kernel. On the heap, as it may outlive a caller that stopped waiting.
struct UblkControl::Call : Completion {
  bool finished = false;
  bool returns_fd = false;
  int32_t result = 0;
  std::string path;
  alignas(8) uint8_t buffer[256] = {};
};

UblkControl::~UblkControl() {
  // The kernel may still write to the buffers of these, and nobody will tell when it has.
  static std::mutex mutex;
  static std::vector<std::shared_ptr<Call>> kept;
  if (!late_.empty()) {
    const std::lock_guard lock(mutex);
    kept.insert(kept.end(), late_.begin(), late_.end());
  }
  ring_.close();
  if (fd_ >= 0) ::close(fd_);
}

int UblkControl::open(const char** failed_call) {
  if (fd_ >= 0) return 0;
  *failed_call = "open";
  const int fd = ::open(kUblkControlPath, O_RDWR | O_CLOEXEC);
  if (fd < 0) return -errno;
  *failed_call = "io_uring_setup";
  if (const int error = ring_.open({.entries = 16, .sqe128 = true}); error != 0) {
    ::close(fd);
    return error;
  }
  fd_ = fd;
  return 0;
}

bool UblkControl::busy() const {
  return std::any_of(late_.begin(), late_.end(), [](const auto& call) { return !call->finished; });
}

void UblkControl::forget_finished() {
  std::erase_if(late_, [](const std::shared_ptr<Call>& call) {
    if (!call->finished) return false;
    if (call->returns_fd && call->result >= 0) ::close(call->result);
    return true;
  });
}

int UblkControl::run(const std::shared_ptr<Call>& call,
                     const std::function<void(io_uring_sqe*)>& fill, UblkClock::time_point deadline,
                     const GiveUp& give_up) {
  assert(fd_ >= 0);
  forget_finished();
  call->done = [](Completion* self, int32_t result, uint32_t) {
    auto* finished = static_cast<Call*>(self);
    finished->result = result;
    finished->finished = true;
  };
  fill(ring_.sqe(call.get()));

  const auto wait = [&](UblkClock::time_point until, bool heed_cancel) {
    while (!call->finished) {
      if (heed_cancel && cancelled_ != nullptr && cancelled_->load()) return -ECANCELED;
      const auto now = UblkClock::now();
      if (now >= until || (heed_cancel && give_up && give_up())) return -ETIMEDOUT;
      const auto left = std::min<UblkClock::duration>(until - now, kSlice);
      const auto us = std::chrono::duration_cast<std::chrono::microseconds>(left).count();
      const int turned = ring_.turn(static_cast<uint64_t>(us) + 1);
      if (turned < 0) return turned;
    }
    return 0;
  };
  const int error = wait(deadline, true);
  if (error == 0) return call->result;

  // This ends what sleeps interruptibly in the driver; what waits for I/O stays.
  io_uring_sqe* cancel = ring_.sqe(nullptr);
  cancel->opcode = IORING_OP_ASYNC_CANCEL;
  cancel->addr = reinterpret_cast<uint64_t>(static_cast<Completion*>(call.get()));
  static_cast<void>(wait(UblkClock::now() + kRetreat, false));
  if (!call->finished) {
    late_.push_back(call);
    return error;
  }
  const bool stopped = call->result == -ECANCELED || call->result == -EINTR;
  return stopped ? error : call->result;
}

int UblkControl::command(uint32_t operation, uint32_t device_id, const void* in, void* out,
                         uint16_t bytes, uint64_t data, UblkClock::time_point deadline,
                         const GiveUp& give_up) {
  auto call = std::make_shared<Call>();
  assert(bytes <= sizeof call->buffer);
  if (in != nullptr) std::memcpy(call->buffer, in, bytes);
  ublksrv_ctrl_cmd command = {};
  command.dev_id = device_id;
  command.queue_id = UINT16_MAX;  // "not for a queue"
  command.len = bytes;
  command.addr = bytes == 0 ? 0 : reinterpret_cast<uint64_t>(call->buffer);
  command.data[0] = data;
  const auto fill = [&](io_uring_sqe* sqe) {
    sqe->opcode = IORING_OP_URING_CMD;
    sqe->fd = fd_;
    sqe->cmd_op = operation;
    std::memcpy(reinterpret_cast<uint8_t*>(sqe) + offsetof(io_uring_sqe, cmd), &command,
                sizeof command);
  };
  const int result = run(call, fill, deadline, give_up);
  if (result >= 0 && out != nullptr) std::memcpy(out, call->buffer, bytes);
  return result;
}

int UblkControl::get_features(uint64_t* features, UblkClock::time_point deadline) {
  static_assert(sizeof *features == UBLK_FEATURES_LEN);
  return command(UBLK_U_CMD_GET_FEATURES, UINT32_MAX, nullptr, features, sizeof *features, 0,
                 deadline);
}

int UblkControl::add(ublksrv_ctrl_dev_info* info, UblkClock::time_point deadline) {
  // The driver refuses a dev_id in the command unlike the one in the struct.
  return command(UBLK_U_CMD_ADD_DEV, info->dev_id, info, info, sizeof *info, 0, deadline);
}

int UblkControl::remove(uint32_t device_id, bool wait, UblkClock::time_point deadline) {
  const uint32_t operation = wait ? UBLK_U_CMD_DEL_DEV : UBLK_U_CMD_DEL_DEV_ASYNC;
  return command(operation, device_id, nullptr, nullptr, 0, 0, deadline);
}

int UblkControl::set_params(uint32_t device_id, const ublk_params& params,
                            UblkClock::time_point deadline) {
  return command(UBLK_U_CMD_SET_PARAMS, device_id, &params, nullptr, sizeof params, 0, deadline);
}

int UblkControl::get_params(uint32_t device_id, ublk_params* params,
                            UblkClock::time_point deadline) {
  *params = {};
  params->len = sizeof *params;
  return command(UBLK_U_CMD_GET_PARAMS, device_id, params, params, sizeof *params, 0, deadline);
}

int UblkControl::get_info(uint32_t device_id, ublksrv_ctrl_dev_info* info,
                          UblkClock::time_point deadline) {
  return command(UBLK_U_CMD_GET_DEV_INFO, device_id, nullptr, info, sizeof *info, 0, deadline);
}

int UblkControl::start(uint32_t device_id, UblkClock::time_point deadline, const GiveUp& give_up) {
  const auto pid = static_cast<uint64_t>(getpid());
  return command(UBLK_U_CMD_START_DEV, device_id, nullptr, nullptr, 0, pid, deadline, give_up);
}

int UblkControl::stop(uint32_t device_id, UblkClock::time_point deadline, const GiveUp& give_up) {
  return command(UBLK_U_CMD_STOP_DEV, device_id, nullptr, nullptr, 0, 0, deadline, give_up);
}

int UblkControl::start_recovery(uint32_t device_id, UblkClock::time_point deadline) {
  return command(UBLK_U_CMD_START_USER_RECOVERY, device_id, nullptr, nullptr, 0, 0, deadline);
}

int UblkControl::end_recovery(uint32_t device_id, UblkClock::time_point deadline,
                              const GiveUp& give_up) {
  const auto pid = static_cast<uint64_t>(getpid());
  return command(UBLK_U_CMD_END_USER_RECOVERY, device_id, nullptr, nullptr, 0, pid, deadline,
                 give_up);
}

int UblkControl::open_block(const std::string& path, int flags, UblkClock::time_point deadline,
                            const GiveUp& give_up) {
  auto call = std::make_shared<Call>();
  call->path = path;
  call->returns_fd = true;
  const auto fill = [&](io_uring_sqe* sqe) {
    sqe->opcode = IORING_OP_OPENAT;
    sqe->fd = AT_FDCWD;
    sqe->addr = reinterpret_cast<uint64_t>(call->path.c_str());
    sqe->open_flags = static_cast<uint32_t>(flags | O_CLOEXEC);
  };
  return run(call, fill, deadline, give_up);
}

int UblkControl::sync_block(int fd, UblkClock::time_point deadline, const GiveUp& give_up) {
  const auto fill = [&](io_uring_sqe* sqe) {
    sqe->opcode = IORING_OP_FSYNC;
    sqe->fd = fd;
  };
  return run(std::make_shared<Call>(), fill, deadline, give_up);
}

int UblkControl::sync_filesystem(const std::string& path, UblkClock::time_point deadline,
                                 const GiveUp& give_up) {
  constexpr int kRunning = 1;
  const auto result = std::make_shared<std::atomic<int>>(kRunning);
  std::thread([path, result] {
    const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const int error = fd < 0 || ::syncfs(fd) != 0 ? -errno : 0;
    if (fd >= 0) ::close(fd);
    result->store(error);
  }).detach();
  for (;;) {
    const int now = result->load();
    if (now != kRunning) return now;
    if (cancelled_ != nullptr && cancelled_->load()) return -ECANCELED;
    if (UblkClock::now() >= deadline || (give_up && give_up())) return -ETIMEDOUT;
    std::this_thread::sleep_for(kPoll);
  }
}

}  // namespace tidemark
