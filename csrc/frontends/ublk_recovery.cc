// Taking over the device of a daemon that is gone.
#include <cerrno>

#include "frontends/ublk_deadline.h"
#include "frontends/ublk_node.h"
#include "frontends/ublk_setup.h"

namespace tidemark {

using namespace ublk_deadline;

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
                   "ublk device " + std::to_string(id) + ": " + p_.queue_failure());
  }
  if (error != 0) return command_failed("END_USER_RECOVERY", error);
  return nullptr;
}

UblkProblem UblkSetup::await_quiesced() {
  const uint32_t id = p_.device.id;
  const std::string name = "ublk device " + std::to_string(id);
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
      if (ublk_served(id) || ublk_process_exists(info.ublksrv_pid)) {
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
  const std::string name = "ublk device " + std::to_string(id);
  const ublksrv_ctrl_dev_info& info = p_.device.info;
  if (info.nr_hw_queues != 1) {
    return problem("UBLK_MISMATCH", 0, "GET_DEV_INFO",
                   name + " has " + std::to_string(info.nr_hw_queues) +
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

}  // namespace tidemark
