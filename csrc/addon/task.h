// Blocking work on a thread of libuv's pool.
#pragma once

#include <node_api.h>

#include <functional>

namespace tidemark::addon {

// Runs `work` on some thread, then `done` on the JavaScript thread, with a handle scope open; also
// when the environment is ending (then calls into JavaScript fail). Keeps the process alive
// meanwhile. Not napi_ok: neither will run.
napi_status start_task(napi_env env, const char* name, std::function<void()> work,
                       std::function<void(napi_env)> done);

}  // namespace tidemark::addon
