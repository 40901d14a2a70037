// io_uring by raw system calls: one ring, used by one thread.
//
// 64-byte submission entries by default, 128-byte ones for ublk control. COOP_TASKRUN,
// SINGLE_ISSUER and DEFER_TASKRUN where the kernel takes them, with a fallback. CQ overflow never
// loses completions (NODROP). user_data is a Completion*; entries without one complete silently.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>

#include "vendor/linux/io_uring.h"

namespace tidemark {

// Something that a completion belongs to. Lives until its last completion was delivered.
struct Completion {
  void (*done)(Completion* self, int32_t result, uint32_t flags) = nullptr;
};

// As the kernel takes times.
__kernel_timespec timespec_of(uint64_t us);

class Ring {
 public:
  struct Options {
    uint32_t entries = 256;
    bool sqe128 = false;
  };
  Ring() = default;
  ~Ring();
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  // 0 or -errno (-ENOSYS also for a kernel older than 5.11). Must be called on the thread that will
  // use the ring. EPERM: io_uring is switched off (kernel.io_uring_disabled, seccomp).
  int open(const Options& options);
  // What is still in flight is cancelled by the kernel at some later time: drain first.
  void close();
  int fd() const { return fd_; }

  // A zeroed entry, to be filled before the next call of any method; submits what is queued first
  // when the queue is full, never nullptr once open. With sqe128 the 80 command bytes start at
  // sqe->cmd. No IOSQE_IO_LINK: a chain would break where the queue happens to be full.
  io_uring_sqe* sqe(Completion* completion);
  // Submit what is queued and, when nothing is ready, wait for a completion or until `timeout_us`
  // (UINT64_MAX: without end; 0: do not wait). Then deliver all completions. Returns how many, or
  // -errno. A signal ends the wait early with 0.
  int turn(uint64_t timeout_us);
  int submit();  // only submit; 0 or -errno

  // Submitted or queued, not yet completed (multishot counts until its last).
  uint64_t in_flight() const { return in_flight_; }

 private:
  struct Mapping {
    void* address = nullptr;
    size_t bytes = 0;
  };
  struct SpilledEntry {
    alignas(io_uring_sqe) uint8_t bytes[128];
  };

  int map(uint64_t offset, size_t bytes, Mapping* out);
  uint32_t queued() const;
  io_uring_sqe* slot(uint32_t index) const;
  void unspill();
  int enter(uint32_t wait_count, uint32_t flags, uint64_t timeout_us);
  int deliver();

  int fd_ = -1;
  size_t sqe_bytes_ = 0;
  Mapping queue_map_;  // both queues (FEAT_SINGLE_MMAP)
  Mapping sqe_map_;
  // Shared with the kernel; each word has one writer.
  uint32_t* sq_head_ = nullptr;   // kernel's
  uint32_t* sq_tail_ = nullptr;   // ours
  uint32_t* sq_flags_ = nullptr;  // kernel's
  uint32_t* cq_head_ = nullptr;   // ours
  uint32_t* cq_tail_ = nullptr;   // kernel's
  io_uring_cqe* cqes_ = nullptr;
  uint32_t sq_entries_ = 0;
  uint32_t cq_mask_ = 0;
  uint32_t local_tail_ = 0;  // entries handed out; *sq_tail_ follows at submit
  uint64_t in_flight_ = 0;
  // Entries for which the kernel had no room even after a submit (it may refuse while its backlog
  // of completions is long). A deque, so that handed-out addresses stay.
  std::deque<SpilledEntry> spilled_;
};

}  // namespace tidemark
