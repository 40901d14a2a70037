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

}  // namespace tidemark::addon
