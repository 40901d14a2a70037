// The activity log in RAM: which extents are hot (may have writes in flight), and which changes to
// that set wait for the disk.
//
// Pure data structure: no I/O. The volume asks it to begin writes, takes a LogTransaction from it,
// writes what R2 demands (backing flush and map blocks of evicted extents, then the log block), and
// says when that is durable.
//
// Invariants
// - A write is `begun` only when every one of its extents is active on durable storage (R1), and
//   takes all of them or none.
// - An extent with references is never evicted. A reference is held by a begun write until its
//   local I/O has ended (Hold::kLocal) and, apart from that, until it is durable at the linked peer
//   or its chunks are marked (Hold::kPeer) (R3).
// - Eviction picks the least recently used extent without references.
// - Such an extent is settled once a flush of the backing disk succeeded that began after its last
//   reference went: its eviction needs no other flush (R3). Extents rest in the order in which
//   their last references went, so that the settled ones are the next to be evicted.
// - Each transaction block carries up to kLogUpdates changes and a rotating part of the whole slot
//   table (context), so that any complete ring of blocks rebuilds the set. Slot i of the table
//   holds one extent number or kExtentNone.
// - One transaction is in flight at a time; everything that becomes pending meanwhile shares the
//   next.
// - A pending write has its place: each of its extents is queued, with a slot set aside for it, or
//   is in the table and kept from eviction. What kFull turns away sets nothing aside; the first one
//   turned away in a round of retries, the oldest, starves: no other cold write is let in before
//   it, and when it was turned away kStarvedAfter times, no new write at all, so that references
//   run out. So everyone gets a turn.
// - Nothing has to be taken back for a waiter that is never tried again: what was kept for it is
//   let go after two transactions.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <vector>

#include "core/types.h"

namespace tidemark {

inline constexpr uint32_t kExtentNone = 0xffffffffu;
inline constexpr uint32_t kLogUpdates = 64;   // changes in one log block
inline constexpr uint32_t kLogContext = 880;  // slot table entries in one log block

struct LogUpdate {
  uint32_t slot = 0;
  uint32_t extent = kExtentNone;  // what the slot holds from now on
};

// One transaction, as the log block codec writes it (core/log_block.h).
struct LogTransaction {
  uint64_t number = 0;             // increases by one; block = number modulo ring size
  std::vector<LogUpdate> updates;  // at most kLogUpdates
  std::vector<uint32_t> evicted;   // leave the set with it, sorted; map blocks first (R2)
  bool settled = true;             // all of those were: the backing disk need not be flushed again
  uint32_t context_start = 0;      // slot index of context[0]
  // The slot table *after* this transaction, rotating part, at most kLogContext entries.
  std::vector<uint32_t> context;
};

class ActivityLog {
 public:
  enum class Hold : uint8_t { kLocal, kPeer };
  enum class Begin : uint8_t {
    kHot,      // all extents active: references of both kinds asked for were taken, go on
    kPending,  // not taken; the extents were queued for the next transaction; begin again after
               // transaction_done()
    kFull,     // not taken, not even queued: no slot can be had now; begin again after a release or
               // transaction_done()
    kTooMany,  // needs more extents than max_extents_per_write(): split the request
  };

  // extents = slots of the table (kExtentsMin..kExtentsMax); extent_count = extents of the device;
  // next_number = of the next transaction.
  ActivityLog(uint32_t extents, uint64_t extent_count, uint64_t next_number);

  uint32_t capacity() const;
  uint32_t hot() const;                    // extents active, durably
  uint64_t memory_bytes() const;           // RAM of the slot table and of what finds extents in it
  uint32_t max_extents_per_write() const;  // capacity / 4, at least 1
  bool is_hot(uint32_t extent) const;
  uint32_t references(uint32_t extent, Hold hold) const;

  // Begin a write over extents [first, last]. Takes one kLocal reference on each, and one kPeer
  // reference on each if `peer`.
  Begin begin(uint32_t first, uint32_t last, bool peer);
  // From here on the owner begins all its waiting writes again, in the order in which they came.
  void begin_retries();
  // One more reference on each of [first, last], for a write that has begun and holds references on
  // them.
  void hold(uint32_t first, uint32_t last, Hold hold);
  void release(uint32_t first, uint32_t last, Hold hold);

  // Mark every unreferenced extent that was not used since `before_us` (see touch clock below) for
  // removal, at most `max` of them; they ride with the next transaction. Returns how many.
  uint32_t retire_idle(uint64_t before_us, uint32_t max);
  // The clock that begin() stamps extents with; set by the owner once a batch.
  void set_now(uint64_t now_us);

  // The next to be evicted are not settled, and some will be.
  bool settle_wanted() const;
  // A flush of the backing disk begins; its number.
  uint64_t settle_begins();
  // That flush succeeded.
  void settled(uint64_t number);

  bool transaction_wanted() const;  // there are queued changes and none in flight
  bool transaction_in_flight() const;
  // Takes up to kLogUpdates queued changes (additions first choose an empty slot, else the LRU
  // unreferenced one). An evicted extent is not hot from this moment. Call only when
  // transaction_wanted(). What is returned stays until transaction_done().
  const LogTransaction& start_transaction();
  // The block is durable: the added extents become hot (ok), or it failed: added extents are not
  // hot, and evicted ones stay out of the RAM set; the disk is then in doubt and the owner must
  // treat the metadata as failed.
  void transaction_done(bool ok);
  uint64_t next_number() const;

  std::vector<uint32_t> active() const;  // all active extents, sorted

 private:
  enum class State : uint8_t { kEmpty, kAdding, kActive, kRemoving };
  struct Slot {
    uint32_t extent = kExtentNone;  // what the table says after the transaction in flight
    State state = State::kEmpty;
    bool wanted = false;    // a pending write counts on it: not evicted
    bool retiring = false;  // leaves with a coming transaction, unless it is used before
    uint32_t local = 0;     // references
    uint32_t peer = 0;
    uint32_t previous = kNoIndex;  // of the list it is on: idle_, wanted_ or none
    uint32_t next = kNoIndex;
    uint64_t used_us = 0;
    uint64_t since = 0;  // on wanted_: the round; on idle_: the flushes that had begun
    bool referenced() const { return local != 0 || peer != 0; }
  };
  struct List {
    uint32_t front = kNoIndex;
    uint32_t back = kNoIndex;
    uint32_t count = 0;
  };
  // What a write over some extents would take, and whether it may.
  struct Need {
    bool hot = true;       // all are active
    bool admitted = true;  // all were set aside or queued for a pending write
    uint32_t slots = 0;    // how many of spare_slots() it would use up
  };
  struct Extents {
    uint32_t first = 0;
    uint32_t last = 0;
    friend bool operator==(const Extents&, const Extents&) = default;
  };
  static constexpr uint32_t kNoIndex = 0xffffffffu;
  static constexpr uint32_t kQueued = 0xfffffffeu;  // in find(): waits for a transaction
  static constexpr uint32_t kStarvedAfter = 16;

  Need need_of(uint32_t first, uint32_t last) const;
  uint32_t spare_slots() const;
  bool nothing_under_way() const;
  bool stands_back(const Extents& extents);
  void take(Slot& slot, uint32_t index, bool peer);
  void want(Slot& slot, uint32_t index);
  void stop_wanting(Slot& slot, uint32_t index);
  void stop_retiring(Slot& slot);
  void rest(uint32_t index);
  void stop_resting(uint32_t index);
  bool is_settled(const Slot& slot) const { return slot.since < flushed_; }
  uint32_t settled_reserve() const;
  void expire_wanted(uint64_t before_round);
  void evict(uint32_t index);
  void add_queued();
  void remove_retiring();
  void fill_context();
  void link(List& list, uint32_t index);  // as the newest, at the back
  void unlink(List& list, uint32_t index);

  // Where an extent is: a slot's index, kQueued or kNoIndex. A hash table with linear probing, made
  // once.
  uint32_t find(uint32_t extent) const;
  void put(uint32_t extent, uint32_t where);
  void erase(uint32_t extent);
  uint32_t home(uint32_t extent) const;
  struct Place {
    uint32_t extent = kExtentNone;
    uint32_t where = kNoIndex;
  };

  std::vector<Slot> slots_;
  std::vector<Place> places_;
  uint32_t place_shift_ = 0;
  uint64_t extent_count_;
  std::vector<uint32_t> empty_;  // slots without an extent
  List idle_;  // active, neither referenced nor wanted; the least recently used in front
  uint32_t unsettled_ = kNoIndex;   // the first on idle_ that is not settled
  uint32_t settled_ = 0;            // how many are before it
  uint64_t flushes_ = 0;            // of the backing disk, begun
  uint64_t flushed_ = 0;            // the last of those that succeeded
  bool evicts_ = false;             // an extent was evicted since the last of those began
  List wanted_;                     // wanted; the one wanted longest ago in front
  std::deque<uint32_t> queue_;      // extents to add, oldest first; each has a slot set aside
  std::vector<uint32_t> changing_;  // slots of the transaction in flight
  uint32_t removing_ = 0;           // slots that it empties
  uint32_t retiring_ = 0;
  uint32_t active_ = 0;
  uint64_t references_ = 0;          // of all slots and both kinds
  std::optional<Extents> starving_;  // the oldest write that found no slot
  bool refused_ = false;             // whether one found none since begin_retries()
  uint32_t starved_ = 0;             // how often it was turned away
  uint64_t round_ = 0;               // transactions started
  uint64_t now_us_ = 0;
  uint64_t next_number_;
  bool in_flight_ = false;
  LogTransaction transaction_;
};

// What a ring of log blocks says after a crash.
struct LogReplay {
  enum class Status : uint8_t { kEmpty, kOk, kUnusable } status = Status::kEmpty;
  std::vector<uint32_t> extents;  // sorted
  uint64_t next_number = 0;       // what a new log goes on with
  uint32_t torn_blocks = 0;       // blocks that failed their checksum
  const char* why = nullptr;      // for kUnusable
};

// Rebuild the set from the decoded blocks of one ring (invalid ones are nullptr, in block order;
// `never_written` tells which are known empty). The log began, with an empty table, with
// transaction `start_number` (Superblock::log_start_number): blocks with lower numbers are of older
// logs and count as never written.
//
// One torn block at the tail is normal (R15): the transaction it carried never became durable, so
// no write of it was submitted. kUnusable: a torn block among those of this log or where none was
// written yet, two in a row at the tail, a gap in the numbers, a block of zeroes among those used,
// blocks that contradict each other, or a ring whose remaining context does not cover every slot.
// Damage among the blocks of older logs does not matter. kEmpty: no transaction of this log is on
// disk.
//
// A new log has to go on with exactly `next_number`: that puts its first block where a torn one
// may lie.
LogReplay replay_log(std::span<const LogTransaction* const> blocks,
                     std::span<const bool> never_written, uint32_t extents,
                     uint64_t start_number = 1);

}  // namespace tidemark
