// What csrc/addon/session.cc does, one step at a time.
#include "addon/session.h"

#include <utility>

#include "addon/environment.h"
#include "opening.h"
#include "process.h"

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

std::shared_ptr<Session> Session::open(napi_env env, const OpenOptions& options,
                                       AttachReport* report, Failure* failure) {
  std::shared_ptr<Session> session(new Session(env, options.engine.name));
  std::shared_ptr<Inbox> inbox = session->inbox_;
  EngineCallbacks callbacks;
  callbacks.event = [inbox](Event event) { inbox->post({std::nullopt, std::move(event)}); };
  callbacks.outgoing = [inbox] { inbox->outgoing = true; };
  callbacks.room = [inbox] { inbox->room = true; };
  EngineError error;
  session->engine_ =
      Engine::open(options.engine, std::move(callbacks), options.suspended, report, &error);
  if (session->engine_ == nullptr) {
    *failure = Failure::of(error);
    return nullptr;
  }
  session->process_ = sim::opening().machine->process;
  sim::opening().session = session;
  return session;
}

Session::~Session() = default;

bool Session::deliver() {
  if (closed_ && close_deferred_ == nullptr) return false;
  std::vector<Answer> answers;
  std::vector<Event> events;
  while (!inbox_->letters.empty()) {
    Inbox::Letter& letter = inbox_->letters.front();
    if (letter.answer.has_value()) {
      if (!events.empty()) break;
      answers.push_back(std::move(*letter.answer));
    } else {
      if (!answers.empty()) break;
      events.push_back(std::move(letter.event));
    }
    inbox_->letters.pop_front();
  }
  const bool outgoing = std::exchange(inbox_->outgoing, false);
  const bool room = std::exchange(inbox_->room, false);
  const bool told = !answers.empty() || !events.empty() || outgoing || room;
  for (const Answer& answer : answers) settle(answer);
  if (closed_) {
    for (const Event& event : events) {
      if (event.kind == EventKind::kIoError) close_error_ = event.text;
    }
    return (inbox_->letters.empty() && finish()) || told;
  }
  if (!events.empty() && listener_ != nullptr) listener_->hear_events(std::move(events));
  // Each handler may close the volume, and nothing is told after that.
  if (outgoing && listener_ != nullptr && !closed_) listener_->hear_outgoing();
  if (room && listener_ != nullptr && !closed_) listener_->hear_room();
  return told;
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

napi_value Session::close(bool abandon) {
  if (closed_) return close_promise_.IsEmpty() ? never() : napi_value(close_promise_.Value());
  napi_value promise = nullptr;
  if (napi_create_promise(env_, &close_deferred_, &promise) != napi_ok) return nullptr;
  closed_ = true;
  abandoned_ = abandon;
  close_promise_ = Napi::Reference<Napi::Value>::New(Napi::Value(env_, promise), 1);
  engine_->close(abandon);
  return promise;
}

// True: the volume has ended, and whoever waits was told.
bool Session::finish() {
  if (!process_->ended()) return false;
  inbox_->shut = true;
  const std::map<uint64_t, napi_deferred> calls = std::exchange(calls_, {});
  if (!calls.empty()) hold(false);
  for (const auto& [number, deferred] : calls) reject(env_, deferred, Failure::closed(name_));
  const napi_deferred deferred = std::exchange(close_deferred_, nullptr);
  if (abandoned_ || close_error_.empty()) {
    resolve(env_, deferred, nullptr);
    return true;
  }
  Failure failure;
  failure.code = "UNCLEAN";
  failure.message = "volume " + name_ + " is closed, but not cleanly: " + close_error_ +
                    "; the next attach replays its activity log";
  reject(env_, deferred, failure);
  return true;
}

void Session::kill() {
  const std::map<uint64_t, napi_deferred> calls = std::exchange(calls_, {});
  if (!calls.empty()) hold(false);
  closed_ = true;
  listener_ = nullptr;
  inbox_->shut = true;
  inbox_->letters.clear();
  for (const auto& [number, deferred] : calls) leave_pending(deferred);
  if (close_deferred_ != nullptr) leave_pending(std::exchange(close_deferred_, nullptr));
  close_promise_.Reset();
}

// Lets go of a promise without settling it: it follows one that nobody can settle.
void Session::leave_pending(napi_deferred deferred) {
  napi_resolve_deferred(env_, deferred, never());
}

napi_value Session::never() {
  const Napi::Env env(env_);
  const Napi::Function nothing = Napi::Function::New(env, [](const Napi::CallbackInfo&) {});
  return env.Global().Get("Promise").As<Napi::Function>().New({nothing});
}

}  // namespace tidemark::addon
