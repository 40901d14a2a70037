// Tasks for the volume's thread from other threads, and the doorbell that wakes it.
//
// The doorbell is a system call only when the thread sleeps. No ring is lost: ring() stores rung_
// and then looks at sleeping_; sleep() stores sleeping_ and then looks at rung_; all sequentially
// consistent, so that at least one of both sees the other's store. What a thread published before
// ring() is seen by the owner after awake(), which clears rung_ before the owner looks at its
// sources.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>
#include <vector>

#include "engine/ring.h"

namespace tidemark {

class Mailbox {
 public:
  Mailbox() = default;
  ~Mailbox();
  Mailbox(const Mailbox&) = delete;
  Mailbox& operator=(const Mailbox&) = delete;

  int open();  // 0 or -errno

  // --- any thread ---
  // False: the mailbox is closed, the task will never run.
  bool post(std::function<void()> task);
  void ring();

  // --- the owner ---
  // Keeps one read of the doorbell in the ring; without it nothing wakes a sleeping owner.
  void listen(Ring& ring);
  // True: the owner may sleep now. Always followed by awake().
  bool sleep();
  void awake();
  // All tasks that are there, in order.
  std::vector<std::function<void()>> take();
  // Ends the read in the ring, which then completes by itself.
  void unlisten();
  bool reading() const { return reading_; }  // the ring still has the read
  // Takes what is there for the last time; post() fails from now on.
  std::vector<std::function<void()>> close();

 private:
  struct Read : Completion {
    Mailbox* mailbox = nullptr;
  };
  void rearm();

  int fd_ = -1;
  uint64_t count_ = 0;  // what the read fills
  Read read_;
  Ring* ring_ = nullptr;
  bool listening_ = false;
  bool reading_ = false;
  std::atomic<bool> sleeping_{false};
  std::atomic<bool> rung_{false};
  std::mutex mutex_;
  std::vector<std::function<void()>> tasks_;
  bool closed_ = false;
};

}  // namespace tidemark
