#include "stepped_session.h"

#include "opening.h"
#include "process.h"

namespace tidemark {

std::shared_ptr<addon::Session> addon::Session::open(napi_env env, const OpenOptions& options,
                                                     AttachReport* report, Failure* failure) {
  return sim::SteppedSession::open(env, options, report, failure);
}

namespace sim {

std::shared_ptr<addon::Session> SteppedSession::open(napi_env env,
                                                     const addon::OpenOptions& options,
                                                     AttachReport* report,
                                                     addon::Failure* failure) {
  std::shared_ptr<SteppedSession> session(new SteppedSession(env, options.engine.name));
  session->inbox_->open([woken = &session->woken_] { return *woken = true; });
  if (!session->attach(options, report, failure)) return nullptr;
  session->process_ = opening().machine->process;
  opening().session = session;
  return session;
}

// A reply may outlive the session, and would wake it.
SteppedSession::~SteppedSession() { inbox_->shut(); }

bool SteppedSession::deliver() {
  const bool closing = closed_;
  if (closing && close_deferred_ == nullptr) return false;
  woken_ = false;
  addon::Delivery delivery = inbox_->take();
  const bool last = !woken_;
  const bool told =
      !delivery.answers.empty() || !delivery.events.empty() || delivery.outgoing || delivery.room;
  handle(std::move(delivery));
  if (!closing || !last || !process_->ended()) return told;
  conclude(abandoned_);
  return true;
}

void SteppedSession::end(bool abandon) {
  abandoned_ = abandon;
  engine_->close(abandon);
}

void SteppedSession::kill() {
  const std::map<uint64_t, napi_deferred> calls = std::exchange(calls_, {});
  if (!calls.empty()) hold(false);
  closed_ = true;
  listener_ = nullptr;
  inbox_->shut();
  for (const auto& [number, deferred] : calls) leave_pending(deferred);
  if (close_deferred_ != nullptr) leave_pending(std::exchange(close_deferred_, nullptr));
  close_promise_ = Napi::Reference<Napi::Value>::New(Napi::Value(env_, never()), 1);
}

// Lets go of a promise without settling it: it follows one that nobody can settle.
void SteppedSession::leave_pending(napi_deferred deferred) {
  napi_resolve_deferred(env_, deferred, never());
}

napi_value SteppedSession::never() {
  const Napi::Env env(env_);
  const Napi::Function nothing = Napi::Function::New(env, [](const Napi::CallbackInfo&) {});
  return env.Global().Get("Promise").As<Napi::Function>().New({nothing});
}

}  // namespace sim
}  // namespace tidemark
