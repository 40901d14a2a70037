// Stopping a device, and deleting it.
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "frontends/ublk_deadline.h"
#include "frontends/ublk_node.h"
#include "frontends/ublk_setup.h"

namespace tidemark {

using namespace ublk_deadline;

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
                   "ublk device " + std::to_string(id) +
                       " is not stopped yet: the volume has not answered " +
                       std::to_string(p_.queue.out()) +
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
  // What a filesystem holds is not among the device's own pages.
  for (const std::string& mount : ublk_mounts(p_.device.id)) {
    static_cast<void>(p_.control.sync_filesystem(mount, in(kSyncTime), no_progress()));
  }
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
                     "dirty pages: no request was done for " + std::to_string(kStall.count()) +
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
                 "ublk device " + std::to_string(p_.device.id) +
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
