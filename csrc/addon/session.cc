#include "addon/session.h"

#include <utility>

#include "addon/environment.h"
#include "addon/task.h"

namespace tidemark::addon {
namespace {

napi_value make_undefined(napi_env env) {
  napi_value value = nullptr;
  napi_get_undefined(env, &value);
  return value;
}

void resolve(napi_env env, napi_deferred deferred, napi_value value) {
  if (value == nullptr) value = make_undefined(env);
  napi_resolve_deferred(env, deferred, value);
}

void reject(napi_env env, napi_deferred deferred, const Failure& failure) {
  napi_value error = make_error(env, failure);
  if (error != nullptr) napi_reject_deferred(env, deferred, error);
}

}  // namespace

std::shared_ptr<Session> Session::open(napi_env env, const OpenOptions& options,
                                       AttachReport* report, Failure* failure) {
  std::shared_ptr<Session> session(new Session(env, options.engine.name));
  if (!session->open_wake(failure)) return nullptr;
  std::shared_ptr<Inbox> inbox = session->inbox_;
  EngineCallbacks callbacks;
  callbacks.event = [inbox](Event event) { inbox->post(std::move(event)); };
  callbacks.outgoing = [inbox] { inbox->post_outgoing(); };
  callbacks.room = [inbox] { inbox->post_room(); };
  EngineError error;
  session->engine_ =
      Engine::open(options.engine, std::move(callbacks), options.suspended, report, &error);
  if (session->engine_ == nullptr) {
    *failure = Failure::of(error);
    session->inbox_->shut();
    session->release_wake();
    return nullptr;
  }
  napi_add_env_cleanup_hook(env, on_environment_end, session.get());
  return session;
}

Session::~Session() = default;

bool Session::open_wake(Failure* failure) {
  // The thread-safe function holds the Session until Node has ended it.
  auto* holder = new std::shared_ptr<Session>(shared_from_this());
  const napi_finalize drop = [](napi_env, void* data, void*) {
    delete static_cast<std::shared_ptr<Session>*>(data);
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
  inbox_->open(wake_);
  return true;
}

void Session::release_wake() {
  if (wake_ == nullptr) return;
  napi_release_threadsafe_function(std::exchange(wake_, nullptr), napi_tsfn_abort);
}

// --- from the volume's thread ---

void Session::on_wake(napi_env env, napi_value, void* context, void*) {
  if (env == nullptr) return;  // it is being ended
  const std::shared_ptr<Session> session = *static_cast<std::shared_ptr<Session>*>(context);
  session->handle(session->inbox_->take());
}

void Session::handle(Delivery delivery) {
  if (!javascript_runs(env_)) return;
  for (const Answer& answer : delivery.answers) settle(answer);
  if (closed_) {
    for (const Event& event : delivery.events) {
      if (event.kind == EventKind::kIoError) close_error_ = event.text;
    }
    return;
  }
  if (!delivery.events.empty() && listener_ != nullptr) {
    listener_->hear_events(std::move(delivery.events));
  }
  // Each handler may close the volume, and nothing is told after that.
  if (delivery.outgoing && listener_ != nullptr && !closed_) listener_->hear_outgoing();
  if (delivery.room && listener_ != nullptr && !closed_) listener_->hear_room();
}

void Session::settle(const Answer& answer) {
  const auto call = calls_.find(answer.call);
  if (call == calls_.end()) return;
  const napi_deferred deferred = call->second;
  calls_.erase(call);
  if (calls_.empty()) hold(false);
  if (answer.failure.has_value()) {
    reject(env_, deferred, *answer.failure);
  } else {
    resolve(env_, deferred, answer.value ? answer.value(env_) : nullptr);
  }
}

void Session::hold(bool waiting) {
  if (listener_ != nullptr) listener_->hold(waiting);
  if (wake_ == nullptr) return;
  if (waiting) {
    napi_ref_threadsafe_function(env_, wake_);
  } else {
    napi_unref_threadsafe_function(env_, wake_);
  }
}

void Session::reject_all_calls() {
  if (calls_.empty()) return;
  const std::map<uint64_t, napi_deferred> calls = std::exchange(calls_, {});
  hold(false);
  if (!javascript_runs(env_)) return;
  for (const auto& [number, deferred] : calls) reject(env_, deferred, Failure::closed(name_));
}

// --- to it ---

napi_value Session::call(const std::function<void(Engine&, const Reply&)>& start) {
  napi_deferred deferred = nullptr;
  napi_value promise = nullptr;
  if (napi_create_promise(env_, &deferred, &promise) != napi_ok) return nullptr;
  if (calls_.empty()) hold(true);
  const uint64_t number = ++last_call_;
  calls_.emplace(number, deferred);
  start(*engine_, Reply(inbox_, number));
  return promise;
}

// --- the end ---

void Session::join(bool abandon) {
  const std::lock_guard lock(ending_);
  if (engine_ != nullptr) engine_->close(abandon);
}

napi_value Session::close(bool abandon) {
  if (closed_) return close_promise_.Value();
  napi_value promise = nullptr;
  if (napi_create_promise(env_, &close_deferred_, &promise) != napi_ok) return nullptr;
  closed_ = true;
  close_promise_ = Napi::Reference<Napi::Value>::New(Napi::Value(env_, promise), 1);
  const std::shared_ptr<Session> self = shared_from_this();
  const napi_status status = start_task(
      env_, "tidemark.close", [self, abandon] { self->join(abandon); },
      [self, abandon](napi_env) { self->finish(abandon); });
  if (status != napi_ok) {
    join(abandon);
    finish(abandon);
  }
  return promise;
}

void Session::finish(bool abandon) {
  for (Delivery& rest : inbox_->shut()) handle(std::move(rest));
  reject_all_calls();
  napi_remove_env_cleanup_hook(env_, on_environment_end, this);
  release_wake();
  engine_.reset();
  if (!javascript_runs(env_)) return;
  if (abandon || close_error_.empty()) {
    resolve(env_, close_deferred_, nullptr);
    return;
  }
  Failure failure;
  failure.code = "UNCLEAN";
  failure.message = "volume " + name_ + " is closed, but not cleanly: " + close_error_ +
                    "; the next attach replays its activity log";
  reject(env_, close_deferred_, failure);
}

void Session::on_environment_end(void* data) {
  // JavaScript cannot run any more: nothing is settled, only ended.
  auto* session = static_cast<Session*>(data);
  session->closed_ = true;
  session->listener_ = nullptr;
  session->inbox_->shut();
  session->join(true);
  session->engine_.reset();
  session->release_wake();  // last: it may be all that holds the Session
}

}  // namespace tidemark::addon
