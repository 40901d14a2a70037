#include "engine/arena.h"

#include <sys/mman.h>

#include <bit>
#include <cassert>
#include <cerrno>

namespace tidemark {
namespace {

size_t round_to_page(size_t bytes) {
  return (bytes + Arena::kSmallest - 1) & ~(Arena::kSmallest - 1);
}

}  // namespace

Arena::~Arena() {
  if (base_ != nullptr) munmap(base_, bound_);
}

int Arena::open(size_t bytes) {
  assert(base_ == nullptr);
  if (bytes < kBytesMin) return -EINVAL;
  bytes &= ~(kLargestPooled - 1);
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return -errno;
  base_ = static_cast<uint8_t*>(memory);
  bound_ = bytes;
  free_order_.assign(bytes / kSmallest, 0);
  for (uint32_t& first : free_) first = kNone;
  constexpr auto kPages = static_cast<uint32_t>(kLargestPooled / kSmallest);
  // Backwards, so that the lowest addresses are used first and the rest stays untouched.
  for (auto page = static_cast<uint32_t>(bytes / kSmallest); page > 0; page -= kPages) {
    push(page - kPages, kOrders - 1);
  }
  return 0;
}

uint32_t Arena::order_of(size_t bytes) {
  return bytes <= kSmallest ? 0 : static_cast<uint32_t>(std::bit_width((bytes - 1) / kSmallest));
}

Arena::Link* Arena::link(uint32_t page) const {
  return reinterpret_cast<Link*>(base_ + size_t{page} * kSmallest);
}

void Arena::push(uint32_t page, uint32_t order) {
  *link(page) = {kNone, free_[order]};
  if (free_[order] != kNone) link(free_[order])->previous = page;
  free_[order] = page;
  free_order_[page] = static_cast<uint8_t>(order + 1);
}

void Arena::unlink(uint32_t page, uint32_t order) {
  const Link* here = link(page);
  if (here->previous == kNone) {
    free_[order] = here->next;
  } else {
    link(here->previous)->next = here->next;
  }
  if (here->next != kNone) link(here->next)->previous = here->previous;
  free_order_[page] = 0;
}

uint8_t* Arena::get(size_t bytes, bool privileged) {
  assert(bytes > 0);
  const bool pooled = bytes <= kLargestPooled;
  const size_t cost = pooled ? kSmallest << order_of(bytes) : round_to_page(bytes);
  uint8_t* buffer = nullptr;
  if (used_ + cost <= bound_ && (privileged || frontend_used_ + cost <= largest())) {
    if (pooled) {
      const uint32_t order = order_of(bytes);
      uint32_t from = order;
      while (from < kOrders && free_[from] == kNone) ++from;
      if (from < kOrders) {
        const uint32_t page = free_[from];
        unlink(page, from);
        // Split down; the upper halves become free.
        while (from > order) {
          --from;
          push(page + (1u << from), from);
        }
        buffer = base_ + size_t{page} * kSmallest;
      }
    } else {
      void* memory =
          mmap(nullptr, cost, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      if (memory != MAP_FAILED) buffer = static_cast<uint8_t*>(memory);
    }
  }
  if (buffer == nullptr) {
    failed_ = true;
  } else {
    used_ += cost;
    if (!privileged) frontend_used_ += cost;
  }
  return buffer;
}

void Arena::put(uint8_t* buffer, size_t bytes, bool privileged) {
  assert(buffer != nullptr && bytes > 0);
  if (failed_) refilled_ = true;
  const bool pooled = bytes <= kLargestPooled;
  const size_t cost = pooled ? kSmallest << order_of(bytes) : round_to_page(bytes);
  used_ -= cost;
  if (!privileged) frontend_used_ -= cost;
  if (!pooled) {
    munmap(buffer, cost);
    return;
  }
  uint32_t order = order_of(bytes);
  auto page = static_cast<uint32_t>((buffer - base_) / static_cast<ptrdiff_t>(kSmallest));
  assert(page < free_order_.size() && free_order_[page] == 0);
  for (; order + 1 < kOrders; ++order) {
    const uint32_t buddy = page ^ (1u << order);
    if (free_order_[buddy] != order + 1) break;
    unlink(buddy, order);
    page &= ~(1u << order);
  }
  push(page, order);
}

bool Arena::take_refilled() {
  if (!refilled_) return false;
  failed_ = refilled_ = false;
  return true;
}

}  // namespace tidemark
