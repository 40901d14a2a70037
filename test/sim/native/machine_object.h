// The object behind SimMachine of test/sim/machine.ts.
#pragma once

#include <napi.h>

#include <memory>

#include "addon/argument.h"
#include "machine.h"
#include "stepped_session.h"

namespace tidemark::sim {

class MachineObject : public Napi::ObjectWrap<MachineObject> {
 public:
  static Napi::Function define(Napi::Env env);

  explicit MachineObject(const Napi::CallbackInfo& info);

  // nullptr: an exception is pending.
  static MachineObject* of(addon::ArgumentReader& reader, const addon::Argument& argument);
  Machine& machine() { return *machine_; }
  // False: the simulation went wrong, and an exception says so.
  bool good(Napi::Env env);

 private:
  Napi::Value node_id(const Napi::CallbackInfo& info);
  Napi::Value open(const Napi::CallbackInfo& info);
  Napi::Value is_open(const Napi::CallbackInfo& info);
  Napi::Value io_count(const Napi::CallbackInfo& info);
  Napi::Value complete_io(const Napi::CallbackInfo& info);
  Napi::Value poll(const Napi::CallbackInfo& info);
  Napi::Value deliver(const Napi::CallbackInfo& info);
  Napi::Value next_deadline_us(const Napi::CallbackInfo& info);
  Napi::Value submit(const Napi::CallbackInfo& info);
  Napi::Value completions(const Napi::CallbackInfo& info);
  Napi::Value requests_out(const Napi::CallbackInfo& info);
  Napi::Value set_faults(const Napi::CallbackInfo& info);
  Napi::Value crash(const Napi::CallbackInfo& info);
  Napi::Value take_unfinished(const Napi::CallbackInfo& info);
  Napi::Value rot(const Napi::CallbackInfo& info);
  Napi::Value claim_newer(const Napi::CallbackInfo& info);
  Napi::Value replace_disk(const Napi::CallbackInfo& info);
  Napi::Value read_stamps(const Napi::CallbackInfo& info);
  Napi::Value counters(const Napi::CallbackInfo& info);
  Napi::Value durable_current(const Napi::CallbackInfo& info);
  Napi::Value dump(const Napi::CallbackInfo& info);
  Napi::Value dispose(const Napi::CallbackInfo& info);

  Napi::Value unfinished(Napi::Env env);
  void kill();

  std::unique_ptr<Machine> machine_;
  std::shared_ptr<SteppedSession> session_;
};

void throw_error(Napi::Env env, const std::string& message);

}  // namespace tidemark::sim
