#include "core/transfer_log.h"

#include <cassert>
#include <utility>

namespace tidemark {

TransferLog::TransferLog(uint32_t capacity) : ring_(capacity) { assert(capacity > 0); }

void TransferLog::reset(uint64_t first_sequence, uint32_t first_epoch) {
  assert(empty());
  base_ = first_sequence;
  bytes_ = 0;
  open_epoch_ = first_epoch;
  open_epoch_writes_ = 0;
  closed_epochs_ = 0;
}

bool TransferLog::full() const { return count_ == capacity(); }
bool TransferLog::empty() const { return count_ == 0; }
uint32_t TransferLog::count() const { return count_; }
uint32_t TransferLog::capacity() const { return static_cast<uint32_t>(ring_.size()); }
uint64_t TransferLog::bytes() const { return bytes_; }
uint64_t TransferLog::base() const { return base_; }
uint64_t TransferLog::next_sequence() const { return base_ + count_; }
uint32_t TransferLog::open_epoch() const { return open_epoch_; }
uint32_t TransferLog::open_epoch_writes() const { return open_epoch_writes_; }
uint32_t TransferLog::closed_epochs() const { return closed_epochs_; }

TransferEntry& TransferLog::at(uint64_t sequence) { return ring_[sequence % ring_.size()]; }
const TransferEntry& TransferLog::at(uint64_t sequence) const {
  return ring_[sequence % ring_.size()];
}

TransferEntry& TransferLog::append(ByteRange range, bool resync, void* owner) {
  assert(!full());
  TransferEntry& entry = at(next_sequence());
  entry = TransferEntry{};
  entry.range = range;
  entry.sequence = next_sequence();
  entry.epoch = open_epoch_;
  entry.resync = resync;
  entry.owner = owner;
  ++count_;
  bytes_ += range.length;
  ++open_epoch_writes_;
  return entry;
}

TransferEntry* TransferLog::find(uint64_t sequence) {
  return const_cast<TransferEntry*>(std::as_const(*this).find(sequence));
}

const TransferEntry* TransferLog::find(uint64_t sequence) const {
  return sequence - base_ < count_ ? &at(sequence) : nullptr;
}

uint32_t TransferLog::close_epoch() {
  assert(closed_epochs_ < UINT32_MAX / 2);  // beyond, older and newer could not be told apart
  open_epoch_writes_ = 0;
  ++closed_epochs_;
  return open_epoch_++;
}

bool TransferLog::acknowledge_epoch(uint32_t epoch) {
  // Differences modulo 2^32: 1 is the epoch closed last, closed_epochs_ the oldest not yet
  // acknowledged.
  const uint32_t back = open_epoch_ - epoch;
  if (back == 0 || back > closed_epochs_) return false;
  closed_epochs_ = back - 1;
  return true;
}

const TransferEntry* TransferLog::front_durable() const {
  if (empty()) return nullptr;
  const TransferEntry& entry = at(base_);
  return open_epoch_ - entry.epoch > closed_epochs_ ? &entry : nullptr;
}

const TransferEntry* TransferLog::front() const { return empty() ? nullptr : &at(base_); }

void TransferLog::pop_front() {
  assert(!empty());
  TransferEntry& entry = at(base_);
  bytes_ -= entry.range.length;
  // Entries of the open epoch leave only when a link is gone; its count is of what is still to be
  // closed.
  if (entry.epoch == open_epoch_) --open_epoch_writes_;
  entry.owner = nullptr;
  ++base_;
  --count_;
}

}  // namespace tidemark
