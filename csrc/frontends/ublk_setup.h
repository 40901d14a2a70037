// What is done with a ublk device as a whole: made, taken over, removed. Runs on the control
// thread, and hops to the volume's thread for what concerns the queue.
//
//   create:   GET_FEATURES, ADD_DEV, SET_PARAMS, GET_PARAMS, open ublkcN, map, FETCH, START_DEV,
//   ublkbN recover:  GET_DEV_INFO until quiesced, GET_PARAMS, START_USER_RECOVERY, open, map,
//   FETCH,
//             END_USER_RECOVERY
//   stop:     sync, STOP_DEV, all tags final, close ublkcN, DEL_DEV
//
// A create that fails leaves no device; a recover that fails leaves the device as quiesced as it
// was.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "engine/error.h"
#include "frontends/ublk_options.h"
#include "frontends/ublk_params.h"
#include "frontends/ublk_queue.h"
#include "frontends/ublk_thread.h"

namespace tidemark {

// For tests: asked before each step; an errno makes the step fail with it.
struct UblkHooks {
  std::function<int(const char* step)> fail;
};

// A device as far as it is made. Written by the control thread; the volume's thread reads it when
// no script runs.
struct UblkDevice {
  uint32_t id = 0;
  bool exists = false;       // added, or taken over
  bool recoverable = false;  // USER_RECOVERY was granted
  ublksrv_ctrl_dev_info info = {};
};

using UblkProblem = std::unique_ptr<EngineError>;  // null: all went well

// create() is in ublk_setup.cc, recover() in ublk_recovery.cc, stop() in ublk_removal.cc.
class UblkSetup {
 public:
  struct Parts {
    UblkControl& control;
    UblkGate& gate;
    UblkQueue& queue;
    const std::function<std::string()>& queue_failure;  // what tags ended of; empty: nothing
    const UblkOptions& options;
    const UblkShape& shape;
    const UblkHooks& hooks;
    UblkDevice& device;
  };
  explicit UblkSetup(const Parts& parts) : p_(parts) {}

  UblkProblem create();
  UblkProblem recover();
  UblkProblem stop(bool force);

 private:
  UblkProblem open_control();
  UblkProblem add();
  UblkProblem exists_already();
  UblkProblem give_params();
  UblkProblem open_queue();
  UblkProblem start();
  UblkProblem await_quiesced();
  UblkProblem check_recoverable();
  UblkProblem refuse_in_use(int* block_fd);
  void sync_best_effort(int* block_fd);
  UblkProblem stalled_sync();
  UblkProblem end_queue();
  UblkProblem remove(bool wait);
  void remove_orphans();
  std::string undo();
  int step(const char* name, const std::function<int()>& action);
  UblkProblem problem(const char* code, int error, const char* syscall, std::string message) const;
  UblkProblem command_failed(const char* command, int error) const;

  Parts p_;
};

}  // namespace tidemark
