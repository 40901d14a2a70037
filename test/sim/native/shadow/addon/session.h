// Stands in for csrc/addon/session.h: the same answers, events and promises, but without a thread:
// deliver() is one turn of JavaScript, and it comes when the simulation says so. volume_object.cc,
// which ships, is compiled against this one.
#pragma once

#include <napi.h>

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "addon/failure.h"
#include "addon/options.h"
#include "core/host.h"
#include "engine/engine.h"

namespace tidemark::sim {
class Process;
}

namespace tidemark::addon {

struct Answer {
  uint64_t call = 0;
  std::optional<Failure> failure;
  std::function<napi_value(napi_env)> value;
};

// What JavaScript has not heard yet, in order.
struct Inbox {
  struct Letter {
    std::optional<Answer> answer;  // or else an event
    Event event;
  };
  std::deque<Letter> letters;
  bool outgoing = false;
  bool room = false;
  bool shut = false;
  void post(Letter letter) {
    if (!shut) letters.push_back(std::move(letter));
  }
};

class Reply {
 public:
  Reply(std::shared_ptr<Inbox> inbox, uint64_t call) : inbox_(std::move(inbox)), call_(call) {}
  void resolve(std::function<napi_value(napi_env)> value = {}) const {
    inbox_->post({Answer{call_, std::nullopt, std::move(value)}, {}});
  }
  void reject(Failure failure) const { inbox_->post({Answer{call_, std::move(failure), {}}, {}}); }

 private:
  std::shared_ptr<Inbox> inbox_;
  uint64_t call_;
};

class Session : public std::enable_shared_from_this<Session> {
 public:
  class Listener {
   public:
    virtual void hear_events(std::vector<Event> events) = 0;
    virtual void hear_outgoing() = 0;
    virtual void hear_room() = 0;
    virtual void hold(bool waiting) = 0;

   protected:
    ~Listener() = default;
  };

  static std::shared_ptr<Session> open(napi_env env, const OpenOptions& options,
                                       AttachReport* report, Failure* failure);
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  void set_listener(Listener* listener) { listener_ = listener; }
  const std::string& name() const { return name_; }
  bool closed() const { return closed_; }
  Engine& engine() { return *engine_; }
  VolumeStatus status() { return engine_->status(true); }
  napi_value call(const std::function<void(Engine&, const Reply&)>& start);
  napi_value close(bool abandon);

  // --- the simulation's ---
  // One turn of JavaScript. False: there was nothing to tell.
  bool deliver();
  // The process died: promises never settle, nothing is told any more.
  void kill();

 private:
  Session(napi_env env, std::string name) : env_(env), name_(std::move(name)) {}
  void settle(const Answer& answer);
  void hold(bool waiting);
  bool finish();
  void leave_pending(napi_deferred deferred);
  napi_value never();  // a promise that nobody settles

  const napi_env env_;
  const std::string name_;
  std::unique_ptr<Engine> engine_;
  std::shared_ptr<sim::Process> process_;
  const std::shared_ptr<Inbox> inbox_ = std::make_shared<Inbox>();
  Listener* listener_ = nullptr;
  uint64_t last_call_ = 0;
  std::map<uint64_t, napi_deferred> calls_;
  bool closed_ = false;
  bool abandoned_ = false;
  Napi::Reference<Napi::Value> close_promise_;
  napi_deferred close_deferred_ = nullptr;
  std::string close_error_;
};

}  // namespace tidemark::addon
