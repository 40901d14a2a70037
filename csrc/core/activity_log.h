// The activity log in RAM: which extents are hot (may have writes in flight), and which changes to that set wait for the disk.
//
// Pure data structure: no I/O. The volume asks it to begin writes, takes a Transaction from it, writes what R2 demands
// (backing flush and map blocks of evicted extents, then the log block), and says when that is durable.
//
// Invariants
// - A write is `begun` only when every one of its extents is active on durable storage (R1), and takes all of them or none.
// - An extent with references is never evicted. A reference is held by a begun write until its local I/O has ended
//   (Hold::kLocal) and, apart from that, until it is durable at the linked peer or its chunks are marked (Hold::kPeer) (R3).
// - Eviction picks the least recently used extent without references.
// - Each transaction block carries up to kLogUpdates changes and a rotating part of the whole slot table (context), so that any complete ring
//   of blocks rebuilds the set. Slot i of the table holds one extent number or kExtentNone.
// - One transaction is in flight at a time; everything that becomes pending meanwhile shares the next.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/types.h"

namespace tidemark {

inline constexpr uint32_t kExtentNone = 0xffffffffu;
inline constexpr uint32_t kLogUpdates = 64;    // changes in one log block
inline constexpr uint32_t kLogContext = 880;   // slot table entries in one log block

struct LogUpdate {
  uint32_t slot = 0;
  uint32_t extent = kExtentNone;  // what the slot holds from now on
};

// One transaction, as the log block codec writes it (core/log_block.h).
struct LogTransaction {
  uint64_t number = 0;                // increases by one; block = number modulo ring size
  std::vector<LogUpdate> updates;     // at most kLogUpdates
  std::vector<uint32_t> evicted;      // extents that leave the set with it; their map blocks go to disk first (R2)
  uint32_t context_start = 0;         // slot index of context[0]
  std::vector<uint32_t> context;      // the slot table *after* this transaction, rotating part, at most kLogContext entries
};

class ActivityLog {
 public:
  enum class Hold : uint8_t { kLocal, kPeer };
  enum class Begin : uint8_t {
    kHot,      // all extents active: references of both kinds asked for were taken, go on
    kPending,  // not taken; the extents were queued for the next transaction; begin again after transaction_done()
    kFull,     // not taken, not even queued: no unreferenced slot is left; begin again after a release
    kTooMany,  // needs more extents than max_extents_per_write(): split the request
  };

  // extents = slots of the table (kExtentsMin..kExtentsMax); extent_count = extents of the device; next_number = of the next transaction.
  ActivityLog(uint32_t extents, uint64_t extent_count, uint64_t next_number);

  uint32_t capacity() const;
  uint32_t hot() const;                    // extents active, durably
  uint32_t max_extents_per_write() const;  // capacity / 4, at least 1
  bool is_hot(uint32_t extent) const;
  uint32_t references(uint32_t extent, Hold hold) const;

  // Begin a write over extents [first, last]. Takes one kLocal reference on each, and one kPeer reference on each if `peer`.
  Begin begin(uint32_t first, uint32_t last, bool peer);
  void release(uint32_t first, uint32_t last, Hold hold);

  // Mark every unreferenced extent that was not used since `before_us` (see touch clock below) for removal, at most `max` of them; they ride with the
  // next transaction. Returns how many.
  uint32_t retire_idle(uint64_t before_us, uint32_t max);
  // The clock that begin() stamps extents with; set by the owner once a batch.
  void set_now(uint64_t now_us);

  bool transaction_wanted() const;  // there are queued changes and none in flight
  bool transaction_in_flight() const;
  // Takes up to kLogUpdates queued changes (additions first choose an empty slot, else the LRU unreferenced one).
  // An evicted extent is not hot from this moment. Call only when transaction_wanted().
  const LogTransaction& start_transaction();
  // The block is durable: the added extents become hot (ok), or it failed: added extents are not hot, and evicted ones stay
  // out of the RAM set; the disk is then in doubt and the owner must treat the metadata as failed.
  void transaction_done(bool ok);
  uint64_t next_number() const;

  std::vector<uint32_t> active() const;  // all active extents, sorted
};

// What a ring of log blocks says after a crash.
struct LogReplay {
  enum class Status : uint8_t { kEmpty, kOk, kUnusable } status = Status::kEmpty;
  std::vector<uint32_t> extents;  // sorted
  uint64_t next_number = 0;       // what a new log goes on with
  uint32_t torn_blocks = 0;       // blocks that failed their checksum
  const char* why = nullptr;      // for kUnusable
};

// Rebuild the set from the decoded blocks of one ring (invalid ones are nullptr, in block order; `never_written` tells which are known empty).
// One torn block at the tail is normal (R15): the transaction it carried never became durable, so no write of it was submitted.
// A torn block anywhere else, a gap in the numbers, or a ring whose remaining context does not cover every slot: kUnusable.
LogReplay replay_log(std::span<const LogTransaction* const> blocks, std::span<const bool> never_written, uint32_t extents);

}  // namespace tidemark
