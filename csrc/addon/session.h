// An open volume as one JavaScript environment knows it: the engine, the inbox between its thread
// and JavaScript, the promises that wait, and the end of all of them.
//
// Ways to end, each of which joins the engine's thread before the environment is gone:
//   close()              a promise; the blocking part runs on a thread of libuv's pool
//   the garbage          the object was dropped without close(): the same, abandoned, nobody waits
//   the environment      process end or worker.terminate(): a cleanup hook abandons and joins at
//   once.
//                        It was added after the thread-safe function, so that it runs before Node
//                        ends that one (hooks run in reverse order).
//
// All methods belong to the JavaScript thread. A Session lives as long as the object, the
// thread-safe function or a task of it needs it.
#pragma once

#include <napi.h>

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
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

class Session : public std::enable_shared_from_this<Session> {
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

  // Blocks for the attach. nullptr: `failure` says why.
  static std::shared_ptr<Session> open(napi_env env, const OpenOptions& options,
                                       AttachReport* report, Failure* failure);
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  // nullptr: nobody listens.
  void set_listener(Listener* listener) { listener_ = listener; }
  const std::string& name() const { return name_; }
  bool closed() const { return closed_; }
  // Only while not closed.
  Engine& engine() { return *engine_; }
  // Of now: whoever asks may have heard of an answer, an event or the end of a request.
  VolumeStatus status() { return engine_->status(true); }

  // Starts something that answers later. The promise, or nullptr with an exception pending.
  napi_value call(const std::function<void(Engine&, const Reply&)>& start);
  // The one promise of the volume's end, the same for every caller.
  napi_value close(bool abandon);

 private:
  explicit Session(napi_env env, std::string name) : env_(env), name_(std::move(name)) {}
  bool open_wake(Failure* failure);
  static void on_wake(napi_env env, napi_value, void* context, void*);
  static void on_environment_end(void* session);

  void handle(Delivery delivery);
  void settle(const Answer& answer);
  // Keeps the process and the object alive while promises wait.
  void hold(bool waiting);
  void reject_all_calls();
  void join(bool abandon);
  void finish(bool abandon);
  void release_wake();

  const napi_env env_;
  const std::string name_;
  std::unique_ptr<Engine> engine_;
  // Held while the engine ends: the environment's end waits for a close() under way.
  std::mutex ending_;
  const std::shared_ptr<Inbox> inbox_ = std::make_shared<Inbox>();
  napi_threadsafe_function wake_ = nullptr;
  Listener* listener_ = nullptr;
  uint64_t last_call_ = 0;
  std::map<uint64_t, napi_deferred> calls_;  // waiting
  bool closed_ = false;                      // close() was called
  Napi::Reference<Napi::Value> close_promise_;
  napi_deferred close_deferred_ = nullptr;
  std::string close_error_;  // what went wrong on the disk since close() was called
};

}  // namespace tidemark::addon
