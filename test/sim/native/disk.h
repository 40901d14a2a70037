// A simulated disk with a volatile cache.
//
// Two views: cached, what reads give; durable, what a power cut leaves of it. A write that is done
// is in the cache. A flush makes durable what was done when the flush *began*, nothing later. FUA
// makes this one write durable. At a power cut each sector that was written and not flushed has its
// durable content or that of any write since: writes are lost, kept and reordered, and torn at 512
// bytes. A flush that fails may leave what it was asked to make durable out of all later flushes of
// this daemon: they succeed and do not mean it. The next daemon's do, as with O_DIRECT; that a page
// cache forgets for longer is not simulated.
//
// Invariant: where no version of a page is kept, cached and durable are the same.
#pragma once

#include <cstdint>
#include <vector>

#include "page.h"
#include "random.h"

namespace tidemark::sim {

class Disk {
 public:
  // Hears which pages may have changed.
  class Watcher {
   public:
    virtual void cached_changed(uint64_t page) = 0;
    virtual void durable_changed(uint64_t page) = 0;

   protected:
    ~Watcher() = default;
  };

  Disk(uint64_t bytes, bool volatile_cache);

  uint64_t bytes() const { return bytes_; }
  uint64_t pages() const { return bytes_ / kPageBytes; }
  const PageTable& cached() const { return cached_; }
  const PageTable& durable() const { return durable_; }
  // Pages with content that is not durable, in no particular order.
  std::vector<uint64_t> volatile_pages() const;

  // All in whole sectors. `data` null: zeroes.
  void read(uint64_t offset, uint8_t* out, uint64_t length) const;
  void write(uint64_t offset, const uint8_t* data, uint64_t length, bool fua);
  // Some of the sectors, as chance has it: a write that the end of the world interrupted.
  void write_torn(uint64_t offset, const uint8_t* data, uint64_t length, bool fua, Random& random);
  // Names what is done until now, for a flush that begins now.
  uint64_t flush_point() const { return sequence_; }
  void flush(uint64_t upto);
  void flush_failed(uint64_t upto, Random& random);
  // What failed flushes of a daemon did not make durable, flushes of the next one will.
  void forgive();
  void power_cut(Random& random);

  // The same disk, cache and all, with nobody watching; it shares every page.
  Disk clone() const;

  void watch(Watcher* watcher) { watchers_.push_back(watcher); }
  void unwatch(Watcher* watcher);
  // From now on it has another's content; the watchers stay, and hear of every page.
  void replace(const Disk& other);

 private:
  static constexpr uint64_t kNever = UINT64_MAX;
  static constexpr uint32_t kClean = UINT32_MAX;
  // What one write left in a page: the sectors in the mask are its.
  struct Version {
    uint64_t sequence;
    uint8_t mask;
    PageRef content;
  };
  struct Volatile {
    uint64_t page;
    std::vector<Version> versions;  // oldest first
  };

  void write_page(uint64_t page, uint32_t begin, uint32_t end, const uint8_t* data, bool fua);
  void make_durable(uint64_t page, uint8_t mask, const PageRef& content);
  Volatile& volatile_of(uint64_t page);
  void forget_volatile(uint32_t index);
  PageRef left_after_cut(const Volatile& entry, uint64_t style, Random& random) const;
  void tell_cached(uint64_t page) {
    for (Watcher* watcher : watchers_) watcher->cached_changed(page);
  }
  void tell_durable(uint64_t page) {
    for (Watcher* watcher : watchers_) watcher->durable_changed(page);
  }

  uint64_t bytes_;
  bool volatile_cache_;
  PageTable cached_;
  PageTable durable_;
  uint64_t sequence_ = 0;
  std::vector<Volatile> volatile_;
  std::vector<uint32_t> volatile_index_;  // by page: into volatile_, or kClean
  std::vector<Watcher*> watchers_;
};

}  // namespace tidemark::sim
