// The entry point of tidemark_sim.node: what test/sim/machine.ts wraps.
#include <napi.h>

#include <iterator>
#include <memory>
#include <string>

#include "addon/environment.h"
#include "addon/handshake_calls.h"
#include "addon/volume_object.h"
#include "checks.h"
#include "machine_object.h"
#include "sim_mutants.h"

namespace tidemark::sim {

int mutant = 0;

namespace {

using addon::ArgumentReader;

Napi::Value set_mutant(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  ArgumentReader reader(info, "setMutant");
  const std::string name = reader.text(reader.argument(0, "name"), 0, 255);
  if (reader.failed()) return env.Undefined();
  for (size_t number = 0; number < std::size(kMutantNames); ++number) {
    if (name != kMutantNames[number]) continue;
    mutant = static_cast<int>(number);
    return env.Undefined();
  }
  throw_error(env, "the native part of this build has no mutant '" + name + "'");
  return env.Undefined();
}

Napi::Array mutants(Napi::Env env) {
  Napi::Array names = Napi::Array::New(env);
  for (uint32_t number = 1; number < std::size(kMutantNames); ++number)
    names.Set(number - 1, Napi::String::New(env, kMutantNames[number]));
  return names;
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  auto environment = std::make_unique<addon::Environment>();
  environment->volume_class = Napi::Persistent(addon::VolumeObject::define(env));
  env.SetInstanceData(environment.release());
  exports.Set("version", Napi::String::New(env, TIDEMARK_VERSION));
  exports.Set("SimMachine", MachineObject::define(env));
  define_checks(env, exports);
  exports.Set("setMutant", Napi::Function::New(env, set_mutant, "setMutant"));
  exports.Set("mutants", mutants(env));
  addon::export_handshake_calls(env, exports);
  return exports;
}

}  // namespace
}  // namespace tidemark::sim

static Napi::Object tidemark_sim_init(Napi::Env env, Napi::Object exports) {
  return tidemark::sim::init(env, exports);
}

NODE_API_MODULE(tidemark_sim, tidemark_sim_init)
