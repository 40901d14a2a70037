#include "frontends/ublk_thread.h"

#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>

#include <utility>

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#endif

namespace tidemark {

void UblkGate::close() {
  {
    const std::lock_guard lock(mutex_);
    host_ = nullptr;
    closed_ = true;
  }
  changed_.notify_all();
}

void UblkGate::notify() {
  // Taken so that a waiter is either before its check or asleep.
  { const std::lock_guard lock(mutex_); }
  changed_.notify_all();
}

void UblkGate::post(std::function<void()> task) {
  const std::lock_guard lock(mutex_);
  if (host_ == nullptr) return;
  host_->post([gate = shared_from_this(), task = std::move(task)] {
    // Closed means that what the task refers to is gone.
    if (!gate->closed_) task();
  });
}

bool UblkGate::run(std::function<void()> task, UblkClock::time_point deadline) {
  struct Progress {
    bool expired = false;
    bool started = false;
    bool finished = false;
  };
  auto progress = std::make_shared<Progress>();
  post([this, progress, task = std::move(task)] {
    {
      const std::lock_guard lock(mutex_);
      if (progress->expired) return;
      progress->started = true;
    }
    task();
    {
      const std::lock_guard lock(mutex_);
      progress->finished = true;
    }
    changed_.notify_all();
  });
  std::unique_lock lock(mutex_);
  changed_.wait_until(lock, deadline, [&] { return progress->started || closed_; });
  if (!progress->started) {
    progress->expired = true;
    return false;
  }
  // It refers to the script's locals: once started it is awaited. It does not block.
  changed_.wait(lock, [&] { return progress->finished; });
  return true;
}

bool UblkGate::wait(const std::function<bool()>& ready, UblkClock::time_point deadline) {
  std::unique_lock lock(mutex_);
  return changed_.wait_until(lock, deadline, [&] { return closed_ || ready(); }) && !closed_;
}

void UblkGate::sleep(UblkClock::duration time) {
  static_cast<void>(wait([] { return false; }, UblkClock::now() + time));
}

struct UblkThread::State {
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<Script> scripts;
  bool quit = false;
  bool at_rest = true;   // no script runs or waits
  bool hanging = false;  // a command of an ended script is still in the driver
};

UblkThread::UblkThread(std::shared_ptr<UblkGate> gate) : state_(std::make_shared<State>()) {
  // Signals belong to the threads that expect them.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([state = state_, gate = std::move(gate)] { main(state, gate); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

UblkThread::~UblkThread() {
  bool ends;
  {
    std::unique_lock lock(state_->mutex);
    state_->quit = true;
    state_->changed.notify_all();
    // Bounded: with the gate closed every wait of a script ends at once.
    state_->changed.wait(lock, [this] { return state_->at_rest; });
    ends = !state_->hanging;
  }
  if (ends) {
    thread_.join();
  } else {
    thread_.detach();
  }
}

void UblkThread::run(Script script) {
  {
    const std::lock_guard lock(state_->mutex);
    state_->scripts.push_back(std::move(script));
    state_->at_rest = false;
  }
  state_->changed.notify_all();
}

void UblkThread::main(const std::shared_ptr<State>& state, const std::shared_ptr<UblkGate>& gate) {
  pthread_setname_np(pthread_self(), "tidemark-ublk");
  // What this thread does while the device is quiesced must not wait for writeback to that device.
  // Needs CAP_SYS_RESOURCE; without it there is only memory pressure to fear.
  prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0);
  UblkControl control(&gate->closed());
  std::unique_lock lock(state->mutex);
  for (;;) {
    state->changed.wait(lock, [&] { return state->quit || !state->scripts.empty(); });
    if (state->scripts.empty()) return;
    Script script = std::move(state->scripts.front());
    state->scripts.pop_front();
    lock.unlock();
    script(control);
    script = nullptr;
    lock.lock();
    state->hanging = control.busy();
    state->at_rest = state->scripts.empty();
    if (state->at_rest) state->changed.notify_all();
  }
}

}  // namespace tidemark
