// What the add-on keeps per JavaScript environment (main thread, each worker). Nothing is kept per
// process.
#pragma once

#include <napi.h>

#include <memory>

namespace tidemark::addon {

class Session;

struct Environment {
  Napi::FunctionReference volume_class;
  std::shared_ptr<Session> opened;  // from open() to the constructor that it calls

  static Environment& of(Napi::Env env) { return *env.GetInstanceData<Environment>(); }
};

// False while the environment ends: nobody waits for anything then, and every call into JavaScript
// fails.
inline bool javascript_runs(napi_env env) {
  napi_value value = nullptr;
  return napi_get_undefined(env, &value) == napi_ok &&
         napi_coerce_to_bool(env, value, &value) == napi_ok;
}

}  // namespace tidemark::addon
