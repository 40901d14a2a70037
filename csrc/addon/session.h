// An open volume as one JavaScript environment knows it: the engine, the inbox between its thread
// and JavaScript, the promises that wait, and the end of all of them. How the inbox wakes
// JavaScript, and what ends the engine, is said by the kind of session: threaded_session.h here,
// and the simulator's, which goes one step at a time.
//
// All methods belong to the JavaScript thread.
#pragma once

#include <napi.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "addon/failure.h"
#include "addon/inbox.h"
#include "addon/options.h"
#include "engine/engine.h"

namespace tidemark::addon {

// Answers one call, once, from any thread; also after the volume is gone.
class Reply {
 public:
  Reply(std::shared_ptr<Inbox> inbox, uint64_t call) : inbox_(std::move(inbox)), call_(call) {}
  void resolve(std::function<napi_value(napi_env)> value = {}) const {
    inbox_->post(Answer{call_, std::nullopt, std::move(value)});
  }
  void reject(Failure failure) const { inbox_->post(Answer{call_, std::move(failure), {}}); }

 private:
  std::shared_ptr<Inbox> inbox_;
  uint64_t call_;
};

class Session {
 public:
  // Hears what the volume's thread tells, on the JavaScript thread, until close() is called.
  class Listener {
   public:
    virtual void hear_events(std::vector<Event> events) = 0;
    virtual void hear_outgoing() = 0;
    virtual void hear_room() = 0;
    // Promises wait, or none does any more: meanwhile the object must not become garbage.
    virtual void hold(bool waiting) = 0;

   protected:
    ~Listener() = default;
  };

  // Blocks for the attach. nullptr: `failure` says why. Of the kind that is linked.
  static std::shared_ptr<Session> open(napi_env env, const OpenOptions& options,
                                       AttachReport* report, Failure* failure);
  virtual ~Session() = default;
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  // nullptr: nobody listens.
  void set_listener(Listener* listener) { listener_ = listener; }
  const std::string& name() const { return name_; }
  bool closed() const { return closed_; }
  // Only while not closed.
  Engine& engine() { return *engine_; }
  // Of now, for whoever asks may have heard of an answer, an event or the end of a request; the
  // last one when the volume's thread does not answer.
  VolumeStatus status() { return engine_->status(true); }

  // Starts something that answers later. The promise, or nullptr with an exception pending.
  napi_value call(const std::function<void(Engine&, const Reply&)>& start);
  // The one promise of the volume's end, the same for every caller.
  napi_value close(bool abandon);

 protected:
  Session(napi_env env, std::string name) : env_(env), name_(std::move(name)) {}

  // Opens the engine, which tells the inbox. False: `failure` says why.
  bool attach(const OpenOptions& options, AttachReport* report, Failure* failure);
  void handle(Delivery delivery);
  // Promises wait, or none does any more.
  virtual void hold(bool waiting);
  // close() was called: ends the engine, and then conclude(), now or later.
  virtual void end(bool abandon) = 0;
  // The engine has ended: tells what was not told, and settles every promise.
  void conclude(bool abandon);

  const napi_env env_;
  const std::string name_;
  std::unique_ptr<Engine> engine_;
  const std::shared_ptr<Inbox> inbox_ = std::make_shared<Inbox>();
  Listener* listener_ = nullptr;
  std::map<uint64_t, napi_deferred> calls_;  // waiting
  bool closed_ = false;                      // close() was called
  Napi::Reference<Napi::Value> close_promise_;
  napi_deferred close_deferred_ = nullptr;  // until it is settled

 private:
  void settle(const Answer& answer);
  void reject_all_calls();

  uint64_t last_call_ = 0;
  std::string close_error_;  // what went wrong on the disk since close() was called
};

}  // namespace tidemark::addon
