// The transfer log of a link: writes sent to the peer and not yet known to be durable there, oldest
// first, and their epochs.
//
// Pure data structure of fixed capacity. What is in it when the link goes is marked dirty (R7).
//
// Invariants
// - Sequences are consecutive from base(); entries leave from the front only, when their epoch is
//   acknowledged (R10).
// - An epoch acknowledgement counts only for epochs that were closed, and in order.
#pragma once

#include <cstdint>
#include <vector>

#include "core/types.h"

namespace tidemark {

struct TransferEntry {
  ByteRange range;
  uint64_t sequence = 0;
  uint32_t epoch = 0;
  bool resync = false;
  bool in_log = true;         // holds references on its extents (not of a diskless primary)
  bool acknowledged = false;  // received (B) or written (C) there
  int32_t error = 0;          // as the peer reported
  void* owner = nullptr;      // the request piece that waits for it, or null
};

class TransferLog {
 public:
  explicit TransferLog(uint32_t capacity);
  // For a new link. The log has to be empty: what an old link left in it was taken out and marked
  // dirty before (R7).
  void reset(uint64_t first_sequence, uint32_t first_epoch);

  bool full() const;
  bool empty() const;
  uint32_t count() const;
  uint32_t capacity() const;
  uint64_t bytes() const;  // sum of the entries' lengths
  uint64_t base() const;   // sequence of the oldest entry, next_sequence() when empty
  uint64_t next_sequence() const;
  uint32_t open_epoch() const;  // the epoch that appended entries belong to
  uint32_t open_epoch_writes() const;
  uint32_t closed_epochs() const;  // closed and not yet acknowledged

  TransferEntry& append(ByteRange range, bool resync, void* owner);  // not when full()
  TransferEntry* find(uint64_t sequence);  // nullptr when it is not in the log
  const TransferEntry* find(uint64_t sequence) const;
  // Close the open epoch, also an empty one; entries appended later belong to the next. Returns the
  // closed one's number.
  uint32_t close_epoch();

  // The peer says that all epochs up to `epoch` are durable. False: it was never closed, was
  // acknowledged already, or goes backwards (the link is to be closed). Epoch numbers may wrap.
  bool acknowledge_epoch(uint32_t epoch);
  // After acknowledge_epoch, and after a link is gone: take entries from the front. nullptr when
  // none is ready (or left).
  const TransferEntry* front_durable() const;  // oldest, if its epoch was acknowledged
  const TransferEntry* front() const;
  void pop_front();

 private:
  TransferEntry& at(uint64_t sequence);
  const TransferEntry& at(uint64_t sequence) const;

  std::vector<TransferEntry> ring_;  // entry of a sequence at sequence modulo capacity
  uint64_t base_ = 1;
  uint32_t count_ = 0;
  uint64_t bytes_ = 0;
  uint32_t open_epoch_ = 1;
  uint32_t open_epoch_writes_ = 0;
  uint32_t closed_epochs_ = 0;  // those before open_epoch_ that were not acknowledged
};

}  // namespace tidemark
