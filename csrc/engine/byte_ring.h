// A byte queue between one producing and one consuming thread. The memory is mapped twice in a row,
// so that every free and every unread part is contiguous: one socket.write() takes all that is
// unread.
//
// Invariants
// - head_ <= published tail_ <= local_tail_ <= head_ + capacity; positions only grow (64 bit).
// - head_ is written by the consumer alone, tail_ by the producer alone; rewind() is for who is
//   both.
//
// No wake-up is lost, and none is sent to a thread that is awake:
//   The consumer that finds the ring empty stores idle_ = true and then looks at tail_ once more;
//   the producer stores tail_ and then looks at idle_. All four accesses are sequentially
//   consistent, so in their one order either the producer's look at idle_ comes after the
//   consumer's store (it sees true and wakes), or the consumer's second look at tail_ comes after
//   the producer's store (it sees the bytes and does not sleep). Both may happen: the consumer is
//   then woken once for nothing, which is harmless. Whoever turns idle_ from true to false owns the
//   wake-up, so that there is one at most. Room works the same with the roles exchanged
//   (room_wanted_ and head_).
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cassert>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <span>

namespace tidemark {

class ByteRing {
 public:
  ByteRing() = default;
  ByteRing(const ByteRing&) = delete;
  ByteRing& operator=(const ByteRing&) = delete;
  ~ByteRing() {
    if (base_ != nullptr) munmap(base_, capacity_ * 2);
  }

  // `bytes`: a power of two and whole pages. 0 or -errno.
  int open(size_t bytes) {
    const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    if (bytes < page || (bytes & (bytes - 1)) != 0) return -EINVAL;
    const int fd = memfd_create("tidemark-ring", MFD_CLOEXEC);
    if (fd < 0) return -errno;
    int error = ftruncate(fd, static_cast<off_t>(bytes)) == 0 ? 0 : -errno;
    void* both = MAP_FAILED;
    if (error == 0) {
      both = mmap(nullptr, bytes * 2, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      if (both == MAP_FAILED) error = -errno;
    }
    for (int half = 0; half < 2 && error == 0; ++half) {
      void* place = static_cast<uint8_t*>(both) + half * bytes;
      if (mmap(place, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED) {
        error = -errno;
      }
    }
    ::close(fd);
    if (error != 0) {
      if (both != MAP_FAILED) munmap(both, bytes * 2);
      return error;
    }
    base_ = static_cast<uint8_t*>(both);
    capacity_ = bytes;
    return 0;
  }

  size_t capacity() const { return capacity_; }
  const uint8_t* memory() const { return base_; }  // both mappings: twice the capacity

  // --- producer ---

  size_t space() const { return capacity_ - (local_tail_ - head_.load(std::memory_order_acquire)); }
  // Contiguous room for `bytes`, or nullptr.
  uint8_t* reserve(size_t bytes) {
    if (space() < bytes) return nullptr;
    return base_ + (local_tail_ & (capacity_ - 1));
  }
  // What was written is part of the queue, but the consumer sees it at publish() only.
  void commit(size_t bytes) {
    assert(bytes <= space());
    local_tail_ += bytes;
  }
  // Shows all committed bytes to the consumer. True: it sleeps and the caller has to wake it.
  bool publish() {
    if (tail_.load(std::memory_order_relaxed) == local_tail_) return false;
    tail_.store(local_tail_);
    return idle_.load() && idle_.exchange(false);
  }
  // Ask to be woken when the consumer makes room. Returns the room there is after the question was
  // asked: when that is enough already, no wake-up needs to be awaited.
  size_t want_room() {
    room_wanted_.store(true);
    return capacity_ - (local_tail_ - head_.load());
  }

  // --- both ends in one thread, and no part of the memory in use ---

  // An empty queue goes on at the front of its memory, which the caches still hold; positions grow
  // all the same.
  void rewind() {
    const uint64_t head = head_.load(std::memory_order_relaxed);
    if (head != local_tail_ || (head & (capacity_ - 1)) == 0) return;
    const uint64_t front = (head + capacity_ - 1) & ~uint64_t{capacity_ - 1};
    local_tail_ = front;
    tail_.store(front);
    head_.store(front);
  }

  // --- consumer ---

  std::span<const uint8_t> unread() const {
    const uint64_t head = head_.load(std::memory_order_relaxed);
    return {base_ + (head & (capacity_ - 1)), static_cast<size_t>(tail_.load() - head)};
  }
  // The same; when it is empty, the producer will wake the consumer at its next publish().
  std::span<const uint8_t> unread_or_sleep() {
    std::span<const uint8_t> bytes = unread();
    if (!bytes.empty()) return bytes;
    idle_.store(true);
    bytes = unread();
    if (!bytes.empty()) idle_.store(false);
    return bytes;
  }
  // True: the producer waits for room and the caller has to wake it.
  bool consume(size_t bytes) {
    const uint64_t head = head_.load(std::memory_order_relaxed) + bytes;
    assert(head <= tail_.load(std::memory_order_relaxed));
    head_.store(head);
    return room_wanted_.load() && room_wanted_.exchange(false);
  }

 private:
  uint8_t* base_ = nullptr;
  size_t capacity_ = 0;
  alignas(64) uint64_t local_tail_ = 0;  // producer's
  std::atomic<uint64_t> tail_{0};
  std::atomic<bool> room_wanted_{false};
  alignas(64) std::atomic<uint64_t> head_{0};
  std::atomic<bool> idle_{true};
};

}  // namespace tidemark
