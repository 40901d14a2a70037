// Interval locks over the volume (R5): two writes that overlap are never in flight together, and are granted in the order in which they asked.
//
// - Exclusive (writes) conflict with everything that overlaps; shared (resync reads) conflict with exclusive only.
// - Fair: a lock waits for every conflicting lock that asked before it, granted or waiting. So copies apply overlapping writes in one order.
// - Intrusive: the caller owns RangeLock objects; nothing is allocated per lock. Ranges must already be rounded to the backing's logical block.
#pragma once

#include <cstdint>

#include "core/types.h"

namespace tidemark {

struct RangeLock {
  ByteRange range;
  bool exclusive = true;
  // Called once when the lock is granted later than acquire(); never from inside acquire(), but from inside another's release().
  void (*granted)(void* context, RangeLock* lock) = nullptr;
  void* context = nullptr;
  // private to RangeLocks
  uint32_t waiting_for = 0;
  bool held = false;
  bool queued = false;
  RangeLock* next = nullptr;
  RangeLock* prev = nullptr;
};

class RangeLocks {
 public:
  // True: held now. False: waiting, `granted` will be called.
  bool acquire(RangeLock* lock);
  // Give back a held lock, or stop waiting. Grants what waited for it alone, oldest first.
  void release(RangeLock* lock);
  bool idle() const;        // nothing held or waiting
  bool conflicts(ByteRange range, bool exclusive) const;  // would acquire() wait?
  uint32_t held() const;
  uint32_t waiting() const;
};

}  // namespace tidemark
