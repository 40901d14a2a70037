// The entry point of the Node-API add-on: NativeAddon of lib/binding/native.ts.

#include <napi.h>

#include <memory>
#include <optional>
#include <string>

#include "addon/argument.h"
#include "addon/environment.h"
#include "addon/failure.h"
#include "addon/handshake_calls.h"
#include "addon/options.h"
#include "addon/task.h"
#include "addon/value.h"
#include "addon/volume_object.h"
#include "engine/create.h"
#include "frontends/features.h"

namespace tidemark::addon {
namespace {

// What a task made: an error, or the result.
template <typename Result>
struct Outcome {
  std::optional<EngineError> error;
  Result result;
};

// A promise of `work` done on another thread, settled with what `make` makes of its result.
template <typename Result, typename Work, typename Make>
Napi::Value promise_of(Napi::Env env, const char* name, Work work, Make make) {
  napi_deferred deferred = nullptr;
  napi_value promise = nullptr;
  if (napi_create_promise(env, &deferred, &promise) != napi_ok) return env.Undefined();
  auto outcome = std::make_shared<Outcome<Result>>();
  const napi_status status = start_task(
      env, name, [outcome, work] { outcome->error = work(&outcome->result); },
      [outcome, deferred, make](napi_env done_env) {
        if (!javascript_runs(done_env)) return;
        if (!outcome->error.has_value()) {
          napi_resolve_deferred(done_env, deferred, make(done_env, outcome->result));
        } else if (napi_value error = make_error(done_env, Failure::of(*outcome->error))) {
          napi_reject_deferred(done_env, deferred, error);
        }
      });
  if (status != napi_ok) {
    Failure failure;
    failure.code = "NATIVE";
    failure.message =
        std::string(name) + ": cannot start a task, Node-API status " + std::to_string(status);
    napi_reject_deferred(env, deferred, make_error(env, failure));
  }
  return Napi::Value(env, promise);
}

Napi::Value create(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  ArgumentReader reader(info, "create");
  const CreateOptions options = read_create_options(reader, reader.argument(0, "options"));
  if (reader.failed()) return env.Undefined();
  return promise_of<CreateReport>(
      env, "tidemark.create",
      [options](CreateReport* report) { return create_volume(options, report); },
      [](napi_env done_env, const CreateReport& report) -> napi_value {
        return make_create_report(done_env, report);
      });
}

Napi::Value dump(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  ArgumentReader reader(info, "dump");
  const DumpOptions options = read_dump_options(reader, reader.argument(0, "options"));
  if (reader.failed()) return env.Undefined();
  return promise_of<std::string>(
      env, "tidemark.dump", [options](std::string* json) { return dump_volume(options, json); },
      [](napi_env done_env, const std::string& json) -> napi_value {
        return Napi::String::New(done_env, json);
      });
}

Napi::Value features(const Napi::CallbackInfo& info) {
  return Napi::String::New(info.Env(), features_json());
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  auto environment = std::make_unique<Environment>();
  environment->volume_class = Napi::Persistent(VolumeObject::define(env));
  env.SetInstanceData(environment.release());
  exports.Set("version", Napi::String::New(env, TIDEMARK_VERSION));
  exports.Set("open", Napi::Function::New(env, VolumeObject::open, "open"));
  exports.Set("create", Napi::Function::New(env, create, "create"));
  exports.Set("dump", Napi::Function::New(env, dump, "dump"));
  exports.Set("features", Napi::Function::New(env, features, "features"));
  export_handshake_calls(env, exports);
  return exports;
}

}  // namespace
}  // namespace tidemark::addon

static Napi::Object tidemark_init(Napi::Env env, Napi::Object exports) {
  return tidemark::addon::init(env, exports);
}

NODE_API_MODULE(tidemark, tidemark_init)
