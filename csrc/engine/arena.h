// Aligned I/O buffers within a bound, for one thread.
//
// Up to 1 MiB: a buddy allocator over one mapping (4 KiB and powers of two), so that memory which
// small buffers used serves large ones afterwards. Above: a mapping each. Both count against the
// bound. The last quarter is kept for the core (get with `privileged`): a frontend that filled the
// arena with payload must not keep the core from the buffers that it needs to finish that very
// payload.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace tidemark {

class Arena {
 public:
  static constexpr size_t kSmallest = 4096;
  static constexpr size_t kLargestPooled = 1u << 20;
  static constexpr size_t kBytesMin = 8u << 20;

  Arena() = default;
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  // 0 or -errno. -EINVAL below kBytesMin.
  int open(size_t bytes);
  // Aligned to 4 KiB; nullptr when the bound is reached. `bytes` > 0.
  uint8_t* get(size_t bytes, bool privileged);
  // `bytes` and `privileged` as it was asked for.
  void put(uint8_t* buffer, size_t bytes, bool privileged);

  // The largest that get(bytes, false) can ever give.
  size_t largest() const { return bound_ / 4 * 3; }
  size_t used() const { return used_; }
  // Whether a get() failed since it was last asked, and a put() came after it.
  bool take_refilled();

 private:
  static constexpr uint32_t kOrders = 9;  // 4 KiB << 8 = 1 MiB
  static constexpr uint32_t kNone = UINT32_MAX;
  struct Link {  // lies in a free block
    uint32_t previous;
    uint32_t next;
  };

  static uint32_t order_of(size_t bytes);
  Link* link(uint32_t page) const;
  void push(uint32_t page, uint32_t order);
  void unlink(uint32_t page, uint32_t order);

  uint8_t* base_ = nullptr;
  size_t bound_ = 0;
  size_t used_ = 0;
  size_t frontend_used_ = 0;     // of it
  uint32_t free_[kOrders] = {};  // first free page number of each order
  std::vector<uint8_t>
      free_order_;  // by page: order + 1 of the free block that starts here, else 0
  bool failed_ = false;
  bool refilled_ = false;
};

}  // namespace tidemark
