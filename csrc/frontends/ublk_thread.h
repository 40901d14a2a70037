// The control thread of one ublk device, and the way between it and the volume's thread.
//
// Scripts run on the control thread, one after the other, as plain blocking code: driver commands,
// waiting for device nodes, hops to the volume's thread. Whoever goes first, no one waits for good:
// closing the gate ends every wait of a script.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#include "engine/frontend.h"
#include "frontends/ublk_control.h"

namespace tidemark {

// Tasks for the volume's thread, until closed there.
class UblkGate : public std::enable_shared_from_this<UblkGate> {
 public:
  explicit UblkGate(FrontendHost& host) : host_(&host) {}

  // On the volume's thread: no task runs from now on, and waits end.
  void close();
  const std::atomic<bool>& closed() const { return closed_; }

  // From the control thread.
  void post(std::function<void()> task);
  // Runs the task on the volume's thread and waits for its end. False: it did not run, and will
  // not.
  bool run(std::function<void()> task, UblkClock::time_point deadline);
  // Waits until `ready`, which is asked again at each notify(). False: closed, or too late.
  bool wait(const std::function<bool()>& ready, UblkClock::time_point deadline);
  void sleep(UblkClock::duration time);
  // From any thread.
  void notify();

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  FrontendHost* host_;
  std::atomic<bool> closed_ = false;
};

class UblkThread {
 public:
  using Script = std::function<void(UblkControl&)>;

  explicit UblkThread(std::shared_ptr<UblkGate> gate);
  // After the gate was closed. Joins, unless a command hangs in the driver: then the thread is left
  // to end with it, as the volume's thread may be what it waits for.
  ~UblkThread();
  UblkThread(const UblkThread&) = delete;
  UblkThread& operator=(const UblkThread&) = delete;

  void run(Script script);

 private:
  struct State;
  static void main(const std::shared_ptr<State>& state, const std::shared_ptr<UblkGate>& gate);

  std::shared_ptr<State> state_;
  std::thread thread_;
};

}  // namespace tidemark
