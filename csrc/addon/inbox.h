// What the volume's thread tells JavaScript: answers to calls and events in their order, and two
// flags. A queue under a lock, and a wake-up that is called only when nothing is on its way
// already, so that a busy volume costs one a batch.
//
// Invariants
// - waking_ is true from the wake-up until the take() that leaves nothing.
// - After shut() nothing is queued and the wake-up is never called again: whoever shuts may release
//   what it calls. Without that a thread would call it after its environment ended and crash.
#pragma once

#include <node_api.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <vector>

#include "addon/failure.h"
#include "core/host.h"

namespace tidemark::addon {

// The answer to one call: a failure, or what makes the value on the JavaScript thread (undefined
// when there is nothing to make).
struct Answer {
  uint64_t call = 0;
  std::optional<Failure> failure;
  std::function<napi_value(napi_env)> value;
};

// What one turn of JavaScript handles: answers or events, never both, so that what waits for an
// answer runs before the handlers of the events behind it.
struct Delivery {
  std::vector<Answer> answers;
  std::vector<Event> events;
  bool outgoing = false;
  bool room = false;
};

class Inbox {
 public:
  // Has the JavaScript thread take() soon; false: it could not, the next post tries again. Called
  // on any thread, under the lock.
  using Wake = std::function<bool()>;

  // The JavaScript thread, before anything is posted.
  void open(Wake wake);

  // Any thread.
  void post(Answer answer);
  void post(Event event);
  void post_outgoing();
  void post_room();

  // The JavaScript thread. Calls `wake` again when something is left.
  Delivery take();
  // Returns what was not taken.
  std::vector<Delivery> shut();

 private:
  struct Letter {
    std::optional<Answer> answer;  // or else an event
    Event event;
  };
  void post_locked(Letter letter);
  void wake_locked();
  Delivery take_locked();

  std::mutex mutex_;
  Wake wake_;  // empty: shut
  bool waking_ = false;
  std::deque<Letter> letters_;
  bool outgoing_ = false;
  bool room_ = false;
};

}  // namespace tidemark::addon
