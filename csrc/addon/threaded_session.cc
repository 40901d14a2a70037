#include "addon/threaded_session.h"

#include "addon/task.h"

namespace tidemark::addon {

std::shared_ptr<Session> Session::open(napi_env env, const OpenOptions& options,
                                       AttachReport* report, Failure* failure) {
  return ThreadedSession::open(env, options, report, failure);
}

std::shared_ptr<Session> ThreadedSession::open(napi_env env, const OpenOptions& options,
                                               AttachReport* report, Failure* failure) {
  std::shared_ptr<ThreadedSession> session(new ThreadedSession(env, options.engine.name));
  if (!session->open_wake(failure)) return nullptr;
  if (!session->attach(options, report, failure)) {
    session->inbox_->shut();
    session->release_wake();
    return nullptr;
  }
  napi_add_env_cleanup_hook(env, on_environment_end, session.get());
  return session;
}

// --- the wake-up ---

bool ThreadedSession::open_wake(Failure* failure) {
  // The thread-safe function holds the session until Node has ended it.
  auto* holder = new std::shared_ptr<ThreadedSession>(shared_from_this());
  const napi_finalize drop = [](napi_env, void* data, void*) {
    delete static_cast<std::shared_ptr<ThreadedSession>*>(data);
  };
  napi_value resource_name = nullptr;
  napi_status status =
      napi_create_string_utf8(env_, "tidemark.volume", NAPI_AUTO_LENGTH, &resource_name);
  if (status == napi_ok) {
    status = napi_create_threadsafe_function(env_, nullptr, nullptr, resource_name, 0, 1, holder,
                                             drop, holder, on_wake, &wake_);
  }
  if (status != napi_ok) {
    delete holder;
    failure->code = "NATIVE";
    failure->message = "volume " + name_ +
                       ": cannot make a thread-safe function, Node-API status " +
                       std::to_string(status);
    return false;
  }
  // An idle volume does not keep the process alive; a promise that waits does (call()).
  napi_unref_threadsafe_function(env_, wake_);
  inbox_->open([wake = wake_] {
    return napi_call_threadsafe_function(wake, nullptr, napi_tsfn_nonblocking) == napi_ok;
  });
  return true;
}

void ThreadedSession::on_wake(napi_env env, napi_value, void* context, void*) {
  if (env == nullptr) return;  // it is being ended
  const std::shared_ptr<ThreadedSession> session =
      *static_cast<std::shared_ptr<ThreadedSession>*>(context);
  session->handle(session->inbox_->take());
}

void ThreadedSession::hold(bool waiting) {
  Session::hold(waiting);
  if (wake_ == nullptr) return;
  if (waiting) {
    napi_ref_threadsafe_function(env_, wake_);
  } else {
    napi_unref_threadsafe_function(env_, wake_);
  }
}

void ThreadedSession::release_wake() {
  if (wake_ == nullptr) return;
  napi_release_threadsafe_function(std::exchange(wake_, nullptr), napi_tsfn_abort);
}

// --- the end ---

void ThreadedSession::join(bool abandon) {
  const std::lock_guard lock(ending_);
  if (engine_ != nullptr) engine_->close(abandon);
}

void ThreadedSession::end(bool abandon) {
  const std::shared_ptr<ThreadedSession> self = shared_from_this();
  const napi_status status = start_task(
      env_, "tidemark.close", [self, abandon] { self->join(abandon); },
      [self, abandon](napi_env) { self->finish(abandon); });
  if (status != napi_ok) {
    join(abandon);
    finish(abandon);
  }
}

void ThreadedSession::finish(bool abandon) {
  conclude(abandon);
  napi_remove_env_cleanup_hook(env_, on_environment_end, this);
  release_wake();
  engine_.reset();
}

void ThreadedSession::on_environment_end(void* data) {
  // JavaScript cannot run any more: nothing is settled, only ended.
  auto* session = static_cast<ThreadedSession*>(data);
  session->closed_ = true;
  session->listener_ = nullptr;
  session->inbox_->shut();
  session->join(true);
  session->engine_.reset();
  session->release_wake();  // last: it may be all that holds the session
}

}  // namespace tidemark::addon
