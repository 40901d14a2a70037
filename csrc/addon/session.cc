#include "addon/session.h"

#include <utility>

#include "addon/environment.h"

namespace tidemark::addon {
namespace {

void resolve(napi_env env, napi_deferred deferred, napi_value value) {
  if (value == nullptr) napi_get_undefined(env, &value);
  napi_resolve_deferred(env, deferred, value);
}

void reject(napi_env env, napi_deferred deferred, const Failure& failure) {
  napi_value error = make_error(env, failure);
  if (error != nullptr) napi_reject_deferred(env, deferred, error);
}

}  // namespace

bool Session::attach(const OpenOptions& options, AttachReport* report, Failure* failure) {
  const std::shared_ptr<Inbox> inbox = inbox_;
  EngineCallbacks callbacks;
  callbacks.event = [inbox](Event event) { inbox->post(std::move(event)); };
  callbacks.outgoing = [inbox] { inbox->post_outgoing(); };
  callbacks.room = [inbox] { inbox->post_room(); };
  EngineError error;
  engine_ = Engine::open(options.engine, std::move(callbacks), options.suspended, report, &error);
  if (engine_ != nullptr) return true;
  *failure = Failure::of(error);
  return false;
}

// --- from the volume's thread ---

void Session::handle(Delivery delivery) {
  if (!javascript_runs(env_)) return;
  for (const Answer& answer : delivery.answers) settle(answer);
  size_t heard = 0;
  for (const Event& event : delivery.events) heard += Engine::peer_event_bytes(event);
  if (closed_) {
    for (const Event& event : delivery.events) {
      if (event.kind == EventKind::kIoError) close_error_ = event.text;
    }
  } else if (!delivery.events.empty() && listener_ != nullptr) {
    listener_->hear_events(std::move(delivery.events));
  }
  if (heard > 0 && engine_ != nullptr) engine_->heard(heard);
  if (closed_) return;
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

napi_value Session::close(bool abandon) {
  if (closed_) return close_promise_.Value();
  napi_value promise = nullptr;
  if (napi_create_promise(env_, &close_deferred_, &promise) != napi_ok) return nullptr;
  closed_ = true;
  close_promise_ = Napi::Reference<Napi::Value>::New(Napi::Value(env_, promise), 1);
  end(abandon);
  return promise;
}

void Session::reject_all_calls() {
  if (calls_.empty()) return;
  const std::map<uint64_t, napi_deferred> calls = std::exchange(calls_, {});
  hold(false);
  if (!javascript_runs(env_)) return;
  for (const auto& [number, deferred] : calls) reject(env_, deferred, Failure::closed(name_));
}

void Session::conclude(bool abandon) {
  for (Delivery& rest : inbox_->shut()) handle(std::move(rest));
  reject_all_calls();
  if (!javascript_runs(env_)) return;
  const napi_deferred deferred = std::exchange(close_deferred_, nullptr);
  if (abandon || close_error_.empty()) {
    resolve(env_, deferred, nullptr);
    return;
  }
  Failure failure;
  failure.code = "UNCLEAN";
  failure.message = "volume " + name_ + " is closed, but not cleanly: " + close_error_ +
                    "; the next attach replays its activity log";
  reject(env_, deferred, failure);
}

}  // namespace tidemark::addon
