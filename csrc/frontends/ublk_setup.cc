#include "frontends/ublk_setup.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "frontends/ublk_node.h"

namespace tidemark {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr auto kCommandTime = seconds(15);  // a command that waits for nobody
constexpr auto kStartTime = seconds(600);   // reads the partition table through the volume
constexpr auto kNodeTime = seconds(10);     // for a device node to appear
constexpr auto kQuiesceTime = seconds(30);  // for a dead daemon's device to be left by it
constexpr auto kOpenersTime = seconds(2);   // for udev's probes to be over
constexpr auto kSyncTime = seconds(3600);   // for what the page cache holds of the device
constexpr auto kStopTime = seconds(60);     // for requests that the volume has
// What waits for the volume may take long, but not without a request being done now and then.
constexpr auto kStall = seconds(20);
constexpr auto kForcedStall = seconds(5);
constexpr auto kTagsTime = seconds(10);
constexpr auto kPoll = milliseconds(10);

UblkClock::time_point in(UblkClock::duration time) { return UblkClock::now() + time; }

std::string number(uint64_t value) { return std::to_string(value); }

bool process_exists(int pid) { return pid > 0 && (kill(pid, 0) == 0 || errno != ESRCH); }

// True once the queue has done no request for some time.
UblkControl::GiveUp stalled(const UblkQueue& queue, UblkClock::duration time) {
  return [&queue, time, seen = queue.progress(), since = UblkClock::now()]() mutable {
    const auto now = UblkClock::now();
    if (std::exchange(seen, queue.progress()) != seen) since = now;
    return now - since >= time;
  };
}

// Whether some process holds ublkcN open.
bool served(uint32_t device_id) {
  const int fd = open(ublk_char_path(device_id).c_str(), O_RDWR | O_CLOEXEC);
  if (fd >= 0) close(fd);
  return fd < 0 && errno == EBUSY;
}

}  // namespace

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
                     (p_.device.exists ? number(p_.device.id) : std::string("(new)")) + ": " +
                     command + " failed: " + std::strerror(-error));
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

// --- making ---

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
    if (process_exists(info.ublksrv_pid) || served(id)) continue;
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
                   "the ublk driver made a device with " + number(info.nr_hw_queues) +
                       " queues of depth " + number(info.queue_depth) + " and " +
                       number(info.max_io_buf_bytes) + " bytes a request; expected one queue");
  }
  return nullptr;
}

UblkProblem UblkSetup::exists_already() {
  const auto id = static_cast<uint32_t>(p_.options.device_id);
  std::string message = "ublk device " + number(id) + " exists already";
  ublksrv_ctrl_dev_info info = {};
  if (p_.control.get_info(id, &info, in(kCommandTime)) == 0) {
    message += " and is " + std::string(ublk_state_name(info.state));
    if (!ublk_marked(info.ublksrv_flags)) {
      message += "; it was not made by Tidemark";
    } else if (info.state == UBLK_S_DEV_QUIESCED) {
      message += ", left by a Tidemark daemon: take it over (recover)";
    } else if (info.ublksrv_pid > 0) {
      message += "; process " + number(static_cast<uint64_t>(info.ublksrv_pid)) + " serves it";
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
  return problem("UBLK_COMMAND", 0, "GET_PARAMS",
                 "ublk device " + number(id) + ": the driver changed the parameters: " + mismatch);
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
                   path + " did not appear within " + number(kNodeTime.count()) +
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
                 "ublk device " + number(p_.device.id) + ": the queue cannot be set up (" + call +
                     "): " + std::strerror(-error));
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
                   "ublk device " + number(id) + ": " + p_.queue_failure());
  }
  if (error == -ETIMEDOUT && p_.queue.out() > 0) {
    return problem("UBLK_TIMEOUT", error, "START_DEV",
                   "ublk device " + number(id) + ": the volume did not answer the kernel, which " +
                       "reads the partition table, for " + number(kStall.count()) +
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
                 path + " did not appear within " + number(kNodeTime.count()) +
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

// --- taking over ---

UblkProblem UblkSetup::recover() {
  UblkProblem failed = open_control();
  if (failed) return failed;
  p_.device.id = static_cast<uint32_t>(p_.options.device_id);
  failed = await_quiesced();
  if (!failed) failed = check_recoverable();
  if (failed) return failed;

  // From here to the last FETCH there is no way back on 6.12: a process that dies in between leaves
  // a device that no one can take over any more. So everything else was done before.
  const uint32_t id = p_.device.id;
  const auto deadline = in(kQuiesceTime);
  int error;
  for (;;) {
    error = step("start-recovery", [&] { return p_.control.start_recovery(id, in(kCommandTime)); });
    if (error != -EBUSY || UblkClock::now() >= deadline || p_.gate.closed()) break;
    p_.gate.sleep(kPoll);
  }
  // EINVAL on a quiesced device: a take-over began and no queue came. If it ended before it mapped
  // anything, the rest can still be done.
  const bool cut_off = error == -EINVAL;
  if (error != 0 && !cut_off) return command_failed("START_USER_RECOVERY", error);
  failed = open_queue();
  if (failed) {
    if (cut_off) {
      failed->message +=
          "; an earlier take-over was cut off, and this kernel cannot begin another: "
          "unmount and delete the device, then start it again";
    }
    return failed;
  }
  const auto tag_failed = [this] { return !p_.queue_failure().empty(); };
  error = step("end-recovery",
               [&] { return p_.control.end_recovery(id, in(kCommandTime), tag_failed); });
  if (tag_failed()) {
    return problem("UBLK_QUEUE", error, "FETCH_REQ",
                   "ublk device " + number(id) + ": " + p_.queue_failure());
  }
  if (error != 0) return command_failed("END_USER_RECOVERY", error);
  return nullptr;
}

UblkProblem UblkSetup::await_quiesced() {
  const uint32_t id = p_.device.id;
  const std::string name = "ublk device " + number(id);
  const auto deadline = in(kQuiesceTime);
  for (;;) {
    ublksrv_ctrl_dev_info& info = p_.device.info;
    const int error =
        step("get-info", [&] { return p_.control.get_info(id, &info, in(kCommandTime)); });
    if (error == -ENODEV) {
      return problem("UBLK_GONE", error, "GET_DEV_INFO",
                     name +
                         " does not exist any more: there is nothing to take over, start a new "
                         "one");
    }
    if (error != 0) return command_failed("GET_DEV_INFO", error);
    if (!ublk_marked(info.ublksrv_flags)) {
      return problem("UBLK_FOREIGN", 0, "GET_DEV_INFO",
                     name + " was not made by Tidemark; choose another device id");
    }
    if (p_.options.volume_tag != 0 && ublk_mark_tag(info.ublksrv_flags) != p_.options.volume_tag) {
      return problem("UBLK_FOREIGN", 0, "GET_DEV_INFO",
                     name + " belongs to another volume; choose another device id");
    }
    if (info.state == UBLK_S_DEV_QUIESCED) {
      p_.device.exists = true;
      p_.device.recoverable = true;
      return nullptr;
    }
    if (info.state == UBLK_S_DEV_DEAD) {
      // Stopped, or never started: nothing waits on it. What is gone can be started anew.
      if (served(id) || process_exists(info.ublksrv_pid)) {
        return problem("UBLK_BUSY", 0, "GET_DEV_INFO",
                       name + " is being started or stopped by another process");
      }
      const int removed = p_.control.remove(id, true, in(kCommandTime));
      if (removed != 0 && removed != -ENODEV) return command_failed("DEL_DEV", removed);
      return problem("UBLK_GONE", 0, "GET_DEV_INFO",
                     name + " was stopped, and is now deleted: start a new one");
    }
    if (UblkClock::now() >= deadline || p_.gate.closed()) {
      return problem("UBLK_BUSY", EBUSY, "GET_DEV_INFO",
                     name + " is " + ublk_state_name(info.state) + " and not quiesced: process " +
                         std::to_string(info.ublksrv_pid) + " still serves it");
    }
    p_.gate.sleep(kPoll);
  }
}

UblkProblem UblkSetup::check_recoverable() {
  const uint32_t id = p_.device.id;
  const std::string name = "ublk device " + number(id);
  const ublksrv_ctrl_dev_info& info = p_.device.info;
  if (info.nr_hw_queues != 1) {
    return problem("UBLK_MISMATCH", 0, "GET_DEV_INFO",
                   name + " has " + number(info.nr_hw_queues) +
                       " queues; this version serves one. Unmount it, stop it with the version "
                       "that made it, and start it again");
  }
  ublk_params found;
  const int error =
      step("get-params", [&] { return p_.control.get_params(id, &found, in(kCommandTime)); });
  if (error != 0) return command_failed("GET_PARAMS", error);
  const std::string mismatch = ublk_params_mismatch(found, p_.shape);
  if (mismatch.empty()) return nullptr;
  return problem("UBLK_MISMATCH", 0, "GET_PARAMS",
                 name + " does not fit the volume: " + mismatch +
                     ". It stays as it is; give the volume its former shape, or unmount and delete "
                     "the device and start it again");
}

// --- removing ---

UblkProblem UblkSetup::stop(bool force) {
  UblkProblem failed = open_control();
  if (failed) return failed;
  const uint32_t id = p_.device.id;
  int block_fd = -1;
  bool used = false;
  if (force) {
    used = !ublk_mounts_and_holders(id).empty() || !ublk_openers(id).empty();
    sync_best_effort(&block_fd);
  } else {
    failed = refuse_in_use(&block_fd);
    if (failed) return failed;
  }
  // STOP_DEV drops dirty pages; what was in the page cache is on the volume now. The exclusive open
  // is kept until the device is stopped, so that nobody mounts it in between.
  const auto no_progress = [&] { return stalled(p_.queue, force ? kForcedStall : kStall); };
  int stopped = step("stop-dev", [&] { return p_.control.stop(id, in(kStopTime), no_progress()); });
  if (stopped == -ETIMEDOUT && force) {
    p_.gate.run([this] { p_.queue.give_up(); }, in(kCommandTime));
    stopped = p_.control.stop(id, in(kStopTime));
  }
  if (block_fd >= 0) ::close(block_fd);
  if (stopped == -ETIMEDOUT && p_.queue.out() > 0) {
    return problem("UBLK_TIMEOUT", stopped, "STOP_DEV",
                   "ublk device " + number(id) +
                       " is not stopped yet: the volume has not answered " +
                       number(p_.queue.out()) +
                       " of its requests; is its I/O suspended? A forced " + "stop fails them");
  }
  if (stopped != 0 && stopped != -ENODEV) return command_failed("STOP_DEV", stopped);
  failed = end_queue();
  if (failed) return failed;
  // With users left the driver keeps the device's number until they have gone: not waited for.
  return remove(!used);
}

void UblkSetup::sync_best_effort(int* block_fd) {
  const auto no_progress = [this] { return stalled(p_.queue, kForcedStall); };
  const std::string path = ublk_block_path(p_.device.id);
  *block_fd = p_.control.open_block(path, O_RDONLY, in(kCommandTime), no_progress());
  if (*block_fd < 0) return;
  static_cast<void>(p_.control.sync_block(*block_fd, in(kSyncTime), no_progress()));
}

UblkProblem UblkSetup::refuse_in_use(int* block_fd) {
  const uint32_t id = p_.device.id;
  const std::string path = ublk_block_path(id);
  const auto in_use = [&](const std::string& how) {
    return problem("UBLK_BUSY", EBUSY, "stop", path + " is in use: " + how);
  };
  const auto deadline = in(kOpenersTime);
  for (;;) {
    if (const std::string use = ublk_mounts_and_holders(id); !use.empty()) return in_use(use);
    const int fd =
        p_.control.open_block(path, O_RDONLY | O_EXCL, in(kSyncTime), stalled(p_.queue, kStall));
    const bool late = UblkClock::now() >= deadline || p_.gate.closed();
    if (fd == -EBUSY && late) {
      return in_use(
          "claimed exclusively (mounted in another namespace, swap, or another device on "
          "top)");
    }
    if (fd == -ENOENT || fd == -ENXIO || fd == -ENODEV) return nullptr;  // gone already
    if (fd == -ETIMEDOUT) return stalled_sync();
    if (fd < 0 && fd != -EBUSY) {
      return problem("UBLK_SYNC", fd, "open",
                     path + " cannot be opened to be synced: " + std::strerror(-fd));
    }
    if (fd >= 0) {
      const std::string opener = ublk_openers(id);
      if (opener.empty()) {
        *block_fd = fd;
        break;
      }
      ::close(fd);
      if (late) return in_use(opener);
    }
    p_.gate.sleep(kPoll);
  }
  const int error = step("sync", [&] {
    return p_.control.sync_block(*block_fd, in(kSyncTime), stalled(p_.queue, kStall));
  });
  if (error == 0) return nullptr;
  ::close(*block_fd);
  *block_fd = -1;
  if (error == -ETIMEDOUT) return stalled_sync();
  return problem("UBLK_SYNC", error, "fsync",
                 path + " is not stopped, as syncing it failed: " + std::strerror(-error));
}

UblkProblem UblkSetup::stalled_sync() {
  return problem("UBLK_TIMEOUT", ETIMEDOUT, "fsync",
                 ublk_block_path(p_.device.id) +
                     " is not stopped, as the volume did not take its " +
                     "dirty pages: no request was done for " + number(kStall.count()) +
                     " s; is its I/O suspended? A forced stop drops them");
}

// After a stop: every tag comes back, then nothing of ours refers to the device.
UblkProblem UblkSetup::end_queue() {
  const bool all = p_.gate.wait([this] { return p_.queue.live() == 0; }, in(kTagsTime));
  const bool ran = p_.gate.run(
      [this] {
        if (p_.queue.live() == 0) {
          p_.queue.close();
        } else {
          p_.queue.abandon();
        }
      },
      in(kCommandTime));
  if (all && ran) return nullptr;
  return problem("UBLK_TIMEOUT", ETIMEDOUT, "STOP_DEV",
                 "ublk device " + number(p_.device.id) +
                     " was stopped, but the driver did not return all its commands; it goes when "
                     "this process ends");
}

UblkProblem UblkSetup::remove(bool wait) {
  const uint32_t id = p_.device.id;
  int error = step("del-dev", [&] { return p_.control.remove(id, wait, in(kCommandTime)); });
  if (error == -EOPNOTSUPP || error == -EINVAL) {
    error = p_.control.remove(id, true, in(kCommandTime));  // no DEL_DEV_ASYNC before Linux 6.9
  }
  // On a timeout the device is gone for users; its number follows with the last reference to it.
  if (error != 0 && error != -ENODEV && error != -ETIMEDOUT) {
    return command_failed("DEL_DEV", error);
  }
  p_.device.exists = false;
  return nullptr;
}

}  // namespace tidemark
