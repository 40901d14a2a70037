// The session of an engine with a thread of its own, which wakes JavaScript by a thread-safe
// function.
//
// Ways to end, each of which joins the engine's thread before the environment is gone:
//   close()              a promise; the blocking part runs on a thread of libuv's pool
//   the garbage          the object was dropped without close(): the same, abandoned, nobody waits
//   the environment      process end or worker.terminate(): a cleanup hook abandons and joins at
//   once.
//                        It was added after the thread-safe function, so that it runs before Node
//                        ends that one (hooks run in reverse order).
//
// It lives as long as the object, the thread-safe function or a task of it needs it.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "addon/session.h"

namespace tidemark::addon {

class ThreadedSession : public Session, public std::enable_shared_from_this<ThreadedSession> {
 public:
  static std::shared_ptr<Session> open(napi_env env, const OpenOptions& options,
                                       AttachReport* report, Failure* failure);

 private:
  ThreadedSession(napi_env env, std::string name) : Session(env, std::move(name)) {}
  bool open_wake(Failure* failure);
  static void on_wake(napi_env env, napi_value, void* context, void*);
  static void on_environment_end(void* session);

  // Keeps the process and the object alive while promises wait.
  void hold(bool waiting) override;
  void end(bool abandon) override;
  void join(bool abandon);
  void finish(bool abandon);
  void release_wake();

  // Held while the engine ends: the environment's end waits for a close() under way.
  std::mutex ending_;
  napi_threadsafe_function wake_ = nullptr;
};

}  // namespace tidemark::addon
