// The session of a simulated process: deliver() is one turn of JavaScript, and it comes when the
// simulation says so.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "addon/session.h"

namespace tidemark::sim {

class Process;

class SteppedSession : public addon::Session {
 public:
  static std::shared_ptr<addon::Session> open(napi_env env, const addon::OpenOptions& options,
                                              AttachReport* report, addon::Failure* failure);
  ~SteppedSession() override;

  // One turn of JavaScript. False: there was nothing to tell.
  bool deliver();
  // The process died: promises never settle, nothing is told any more.
  void kill();

 private:
  SteppedSession(napi_env env, std::string name) : Session(env, std::move(name)) {}
  void end(bool abandon) override;
  void leave_pending(napi_deferred deferred);
  napi_value never();  // a promise that nobody settles

  std::shared_ptr<Process> process_;
  bool woken_ = false;  // by the inbox: something is left in it
  bool abandoned_ = false;
};

}  // namespace tidemark::sim
