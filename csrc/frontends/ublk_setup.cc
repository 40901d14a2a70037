#include "frontends/ublk_setup.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "frontends/ublk_deadline.h"
#include "frontends/ublk_node.h"

namespace tidemark {

using namespace ublk_deadline;

UblkProblem UblkSetup::problem(const char* code, int error, const char* syscall,
                               std::string message) const {
  auto made = std::make_unique<EngineError>();
  made->code = code;
  made->error_number = error < 0 ? -error : error;
  made->syscall = syscall;
  made->message = std::move(message);
  return made;
}

UblkProblem UblkSetup::command_failed(const char* command, int error) const {
  const char* code = error == -ETIMEDOUT ? "UBLK_TIMEOUT" : "UBLK_COMMAND";
  return problem(code, error, command,
                 std::string("ublk device ") +
                     (p_.device.exists ? std::to_string(p_.device.id) : std::string("(new)")) +
                     ": " + command + " failed: " + std::strerror(-error));
}

int UblkSetup::step(const char* name, const std::function<int()>& action) {
  if (p_.hooks.fail) {
    if (const int error = p_.hooks.fail(name); error != 0) return -error;
  }
  return action();
}

UblkProblem UblkSetup::open_control() {
  const char* failed_call = "";
  const int error = step("open-control", [&] { return p_.control.open(&failed_call); });
  if (error == 0) return nullptr;
  const std::string path = kUblkControlPath;
  if (std::strcmp(failed_call, "io_uring_setup") == 0) {
    return problem("UBLK_UNAVAILABLE", error, failed_call,
                   std::string("io_uring with 128-byte entries is refused: ") +
                       std::strerror(-error) +
                       "; see the sysctl kernel.io_uring_disabled and seccomp filters, or use the "
                       "NBD frontend");
  }
  switch (error) {
    case -ENOENT:
    case -ENODEV:
    case -ENXIO:
      return problem("UBLK_UNAVAILABLE", error, "open",
                     path +
                         " is missing: load the driver (modprobe ublk_drv; Linux 6.0 or newer "
                         "with CONFIG_BLK_DEV_UBLK), or use the NBD frontend");
    case -EACCES:
    case -EPERM:
      return problem("UBLK_PERMISSION", error, "open",
                     path +
                         " may not be opened: run as root (CAP_SYS_ADMIN), or use the NBD "
                         "frontend");
    default:
      return problem("UBLK_UNAVAILABLE", error, "open",
                     path + " cannot be opened: " + std::strerror(-error));
  }
}

UblkProblem UblkSetup::create() {
  UblkProblem failed = open_control();
  if (failed) return failed;
  remove_orphans();
  failed = add();
  if (!failed) failed = give_params();
  if (!failed) failed = open_queue();
  if (!failed) failed = start();
  if (!failed) return nullptr;
  if (const std::string left = undo(); !left.empty()) failed->message += "; " + left;
  return failed;
}

// Devices that a Tidemark process made and did not live to start, or to delete. Nothing but the id
// tells them apart for users, and an explicit id would be taken for good.
void UblkSetup::remove_orphans() {
  for (const uint32_t id : ublk_device_ids()) {
    ublksrv_ctrl_dev_info info = {};
    if (p_.control.get_info(id, &info, in(kCommandTime)) != 0) continue;
    if (!ublk_marked(info.ublksrv_flags) || info.state != UBLK_S_DEV_DEAD) continue;
    if (ublk_process_exists(info.ublksrv_pid) || ublk_served(id)) continue;
    static_cast<void>(p_.control.remove(id, true, in(kCommandTime)));
  }
}

UblkProblem UblkSetup::add() {
  uint64_t features = 0;
  int error =
      step("get-features", [&] { return p_.control.get_features(&features, in(kCommandTime)); });
  if (error == -EPERM || error == -EACCES) {
    return problem("UBLK_PERMISSION", error, "GET_FEATURES",
                   "the ublk driver refuses this process: run as root (CAP_SYS_ADMIN)");
  }
  if (error != 0 && error != -EINVAL && error != -EOPNOTSUPP) {
    return command_failed("GET_FEATURES", error);
  }
  if (error != 0 || (features & UBLK_F_CMD_IOCTL_ENCODE) == 0) {
    return problem("UBLK_UNAVAILABLE", error, "GET_FEATURES",
                   "the ublk driver is older than Linux 6.5: it does not tell its features; use a "
                   "newer kernel, or the NBD frontend");
  }

  ublksrv_ctrl_dev_info& info = p_.device.info;
  info = {};
  info.nr_hw_queues = 1;
  info.queue_depth = p_.options.queue_depth;
  info.max_io_buf_bytes = p_.options.max_io_bytes;
  info.dev_id = static_cast<uint32_t>(p_.options.device_id);  // all ones: the kernel chooses
  info.ublksrv_pid = getpid();
  info.flags = kUblkWanted & features;
  info.ublksrv_flags = ublk_mark(p_.options.volume_tag);
  error = step("add-dev", [&] { return p_.control.add(&info, in(kCommandTime)); });
  if (error == -EEXIST) return exists_already();
  if (error == -EPERM || error == -EACCES) {
    return problem("UBLK_PERMISSION", error, "ADD_DEV",
                   "a ublk device may not be made by this process: run as root (CAP_SYS_ADMIN)");
  }
  if (error != 0) return command_failed("ADD_DEV", error);
  p_.device.exists = true;
  p_.device.id = info.dev_id;
  p_.device.recoverable = (info.flags & UBLK_F_USER_RECOVERY) != 0;
  if (info.nr_hw_queues != 1 || info.queue_depth == 0 || info.max_io_buf_bytes < kUblkIoBytesMin) {
    return problem("UBLK_COMMAND", 0, "ADD_DEV",
                   "the ublk driver made a device with " + std::to_string(info.nr_hw_queues) +
                       " queues of depth " + std::to_string(info.queue_depth) + " and " +
                       std::to_string(info.max_io_buf_bytes) +
                       " bytes a request; expected one queue");
  }
  return nullptr;
}

UblkProblem UblkSetup::exists_already() {
  const auto id = static_cast<uint32_t>(p_.options.device_id);
  std::string message = "ublk device " + std::to_string(id) + " exists already";
  ublksrv_ctrl_dev_info info = {};
  if (p_.control.get_info(id, &info, in(kCommandTime)) == 0) {
    message += " and is " + std::string(ublk_state_name(info.state));
    if (!ublk_marked(info.ublksrv_flags)) {
      message += "; it was not made by Tidemark";
    } else if (info.state == UBLK_S_DEV_QUIESCED) {
      message += ", left by a Tidemark daemon: take it over (recover)";
    } else if (info.ublksrv_pid > 0) {
      message +=
          "; process " + std::to_string(static_cast<uint64_t>(info.ublksrv_pid)) + " serves it";
    }
  }
  return problem("UBLK_EXISTS", EEXIST, "ADD_DEV", message + "; or choose another device id");
}

UblkProblem UblkSetup::give_params() {
  const uint32_t id = p_.device.id;
  const ublk_params params = ublk_params_for(p_.shape, p_.device.info.max_io_buf_bytes);
  int error =
      step("set-params", [&] { return p_.control.set_params(id, params, in(kCommandTime)); });
  if (error != 0) return command_failed("SET_PARAMS", error);
  ublk_params found;
  error = step("get-params", [&] { return p_.control.get_params(id, &found, in(kCommandTime)); });
  if (error != 0) return command_failed("GET_PARAMS", error);
  const std::string mismatch = ublk_params_mismatch(found, p_.shape);
  if (mismatch.empty()) return nullptr;
  return problem(
      "UBLK_COMMAND", 0, "GET_PARAMS",
      "ublk device " + std::to_string(id) + ": the driver changed the parameters: " + mismatch);
}

UblkProblem UblkSetup::open_queue() {
  const std::string path = ublk_char_path(p_.device.id);
  int fd = -1;
  // devtmpfs and udev may lag; EBUSY: a predecessor's last reference is on its way out.
  const auto deadline = in(kNodeTime);
  int error = step("open-char", [&] {
    for (;;) {
      fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
      if (fd >= 0) return 0;
      const int why = errno;
      const bool wait = why == ENOENT || why == ENXIO || why == EBUSY || why == EINTR;
      if (!wait || UblkClock::now() >= deadline || p_.gate.closed()) return -why;
      p_.gate.sleep(kPoll);
    }
  });
  if (error == -ENOENT) {
    return problem("UBLK_NODE", error, "open",
                   path + " did not appear within " + std::to_string(kNodeTime.count()) +
                       " s: is devtmpfs mounted on /dev?");
  }
  if (error != 0) {
    return problem("UBLK_NODE", error, "open",
                   path + " cannot be opened: " + std::strerror(-error));
  }

  const char* call = "mmap";
  const bool ran = p_.gate.run(
      [&] {
        error = step("map-queue", [&] {
          return p_.queue.map(std::exchange(fd, -1), p_.device.info.queue_depth,
                              p_.device.info.max_io_buf_bytes);
        });
        if (error != 0) return;
        call = "FETCH_REQ";
        error = step("fetch", [&] { return p_.queue.fetch(); });
      },
      in(kCommandTime));
  if (fd >= 0) ::close(fd);
  if (!ran) error = -ECANCELED;
  if (error == 0) return nullptr;
  return problem("UBLK_QUEUE", error, call,
                 "ublk device " + std::to_string(p_.device.id) + ": the queue cannot be set up (" +
                     call + "): " + std::strerror(-error));
}

UblkProblem UblkSetup::start() {
  const uint32_t id = p_.device.id;
  const auto tag_failed = [this] { return !p_.queue_failure().empty(); };
  const auto give_up = [tag_failed, no_progress = stalled(p_.queue, kStall)] {
    return tag_failed() || no_progress();
  };
  int error = step("start-dev", [&] { return p_.control.start(id, in(kStartTime), give_up); });
  if (tag_failed()) {
    return problem("UBLK_QUEUE", error, "FETCH_REQ",
                   "ublk device " + std::to_string(id) + ": " + p_.queue_failure());
  }
  if (error == -ETIMEDOUT && p_.queue.out() > 0) {
    return problem("UBLK_TIMEOUT", error, "START_DEV",
                   "ublk device " + std::to_string(id) +
                       ": the volume did not answer the kernel, which " +
                       "reads the partition table, for " + std::to_string(kStall.count()) +
                       " s; is its I/O suspended?");
  }
  if (error != 0) return command_failed("START_DEV", error);

  // A node of a device that had this id before is no answer.
  const std::string path = ublk_block_path(id);
  const auto deadline = in(kNodeTime);
  error = step("block-node", [&] {
    ublk_params params;
    const int failed = p_.control.get_params(id, &params, in(kCommandTime));
    if (failed != 0) return failed;
    const dev_t device = makedev(params.devt.disk_major, params.devt.disk_minor);
    for (;;) {
      struct stat status;
      const bool there = stat(path.c_str(), &status) == 0 && S_ISBLK(status.st_mode);
      if (there && status.st_rdev == device) return 0;
      if (UblkClock::now() >= deadline || p_.gate.closed()) return -ENOENT;
      p_.gate.sleep(kPoll);
    }
  });
  if (error == 0) return nullptr;
  return problem("UBLK_NODE", error, "stat",
                 path + " did not appear within " + std::to_string(kNodeTime.count()) +
                     " s: is devtmpfs mounted on /dev?");
}

// Removes what create() made. Returns what could not be removed, and why.
std::string UblkSetup::undo() {
  if (!p_.device.exists) return {};
  // A partition scan that waits for the volume must end before the driver lets go.
  p_.gate.run([this] { p_.queue.give_up(); }, in(kCommandTime));
  const int stopped = p_.control.stop(p_.device.id, in(kStopTime));
  UblkProblem failed;
  if (stopped != 0 && stopped != -ENODEV) failed = command_failed("STOP_DEV", stopped);
  if (!failed) failed = end_queue();
  if (!failed) failed = remove(true);
  return failed ? "the half-made device is left: " + failed->message : std::string();
}

}  // namespace tidemark
