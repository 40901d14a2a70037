// Interval locks over the volume (R5): two writes that overlap are never in flight together, and
// are granted in the order in which they asked.
//
// - Exclusive (writes) conflict with everything that overlaps; shared (resync reads) conflict with
//   exclusive only.
// - Fair: a lock waits for every conflicting lock that asked before it, granted or waiting. So
//   copies apply overlapping writes in one order.
// - Intrusive: the caller owns RangeLock objects; nothing is allocated per lock. Ranges must
//   already be rounded to the backing's logical block.
#pragma once

#include <cstdint>

#include "core/types.h"

namespace tidemark {

struct RangeLock {
  ByteRange range;
  bool exclusive = true;
  // Called once when the lock is granted later than acquire(); never from inside acquire(), but
  // from inside another's release().
  void (*granted)(void* context, RangeLock* lock) = nullptr;
  void* context = nullptr;
  // Private to RangeLocks.
  bool held = false;
  bool queued = false;       // known to a RangeLocks: held or waiting
  bool granting = false;     // held, and its `granted` call is due
  uint32_t waiting_for = 0;  // conflicting locks that asked before it
  uint32_t priority = 0;     // of the treap, random
  uint64_t ticket = 0;       // order of asking
  uint64_t end_max = 0;      // the highest end in its subtree
  RangeLock* left = nullptr;
  RangeLock* right = nullptr;
  RangeLock* next = nullptr;  // of the list of due calls
};

class RangeLocks {
 public:
  RangeLocks() = default;
  // An abandoned volume ends with locks held or waiting: they are forgotten, and not touched.
  ~RangeLocks() = default;
  RangeLocks(const RangeLocks&) = delete;
  RangeLocks& operator=(const RangeLocks&) = delete;

  // True: held now. False: waiting, `granted` will be called. The range must not be empty.
  bool acquire(RangeLock* lock);
  // Give back a held lock, or stop waiting. Grants what waited for it alone, oldest first.
  // `granted` may acquire and release (itself too): what that grants is called after it, by the
  // outermost release().
  void release(RangeLock* lock);
  bool idle() const;                                      // nothing held or waiting
  bool conflicts(ByteRange range, bool exclusive) const;  // would acquire() wait?
  uint32_t held() const;
  uint32_t waiting() const;

 private:
  void append_due(RangeLock* lock);
  void remove_due(RangeLock* lock);

  RangeLock* root_ = nullptr;  // treap by (offset, ticket), with the highest end of each subtree
  uint64_t next_ticket_ = 1;
  uint32_t held_ = 0;
  uint32_t waiting_ = 0;
  RangeLock* due_first_ = nullptr;  // granted, not yet called
  RangeLock* due_last_ = nullptr;
  bool calling_ = false;
};

}  // namespace tidemark
