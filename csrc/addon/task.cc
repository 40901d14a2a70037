#include "addon/task.h"

#include <memory>
#include <utility>

namespace tidemark::addon {
namespace {

struct Task {
  std::function<void()> work;
  std::function<void(napi_env)> done;
  napi_async_work handle = nullptr;
};

void execute(napi_env, void* data) { static_cast<Task*>(data)->work(); }

void complete(napi_env env, napi_status, void* data) {
  const std::unique_ptr<Task> task(static_cast<Task*>(data));
  task->done(env);
  napi_delete_async_work(env, task->handle);
}

}  // namespace

napi_status start_task(napi_env env, const char* name, std::function<void()> work,
                       std::function<void(napi_env)> done) {
  auto task = std::make_unique<Task>(Task{std::move(work), std::move(done)});
  napi_value resource_name = nullptr;
  napi_status status = napi_create_string_utf8(env, name, NAPI_AUTO_LENGTH, &resource_name);
  if (status != napi_ok) return status;
  status = napi_create_async_work(env, nullptr, resource_name, execute, complete, task.get(),
                                  &task->handle);
  if (status != napi_ok) return status;
  status = napi_queue_async_work(env, task->handle);
  if (status != napi_ok) {
    napi_delete_async_work(env, task->handle);
    return status;
  }
  task.release();
  return napi_ok;
}

}  // namespace tidemark::addon
